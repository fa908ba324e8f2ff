"""The supervisor of a local run outlives its terminal and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from local_runs import LocalRun, until

from orchestrator.errors import UserError
from orchestrator.runs.process import start_time, this_process
from orchestrator.schedulers.base import JobState
from orchestrator.schedulers.local import Local
from orchestrator.spec.job import JobSpec

CHECKOUT = Path(__file__).resolve().parents[2]
MakeRun = Callable[..., LocalRun]

# An agent that says what it was given and ends when a file appears, or on SIGTERM.
AGENT = """
import json, os, signal, sys, time
run = os.path.dirname(os.path.dirname(sys.argv[-1]))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(43))
seen = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(),
        "ignored": status["SigIgn"].strip(), "blocked": status["SigBlk"].strip()}
with open(run + "/seen.new", "w") as file:
    json.dump(seen, file)
os.rename(run + "/seen.new", run + "/seen")
while not os.path.exists(run + "/go"):
    time.sleep(0.02)
"""


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[MakeRun]:
    made: list[LocalRun] = []

    def make(run_id: str = "demo-0001", agent: str | bytes = AGENT, **options: int) -> LocalRun:
        made.append(LocalRun(tmp_path / "runs", run_id, agent, **options))
        return made[-1]

    yield make
    for run in made:
        run.end()


def seen(run: LocalRun) -> dict:
    path = run.layout.root / "seen"
    until(path.exists, "the agent's start", run.log)
    return json.loads(path.read_text())


def go(run: LocalRun) -> None:
    (run.layout.root / "go").touch()


def test_the_supervisor_is_no_child_of_the_client_and_of_no_terminal(make_run: MakeRun) -> None:
    run = make_run()
    job_id = run.submit()
    pid = run.supervisor
    assert job_id == f"local-{os.uname().nodename}-{pid}"
    assert os.getsid(pid) not in (os.getsid(0), pid)
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(stat[1]) != os.getpid()
    assert stat[4] == "0"  # no controlling terminal
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert Path(f"/proc/{pid}/fd/1").readlink() == run.layout.scheduler_log
    started = run.events("supervisor_started")[0]
    assert started.fields["start"] == start_time(pid)
    go(run)
    assert run.await_event("supervisor_ended").fields == {"rc": 0}


def test_hang_up_and_ctrl_c_leave_the_run_going(make_run: MakeRun) -> None:
    run = make_run()
    run.submit()
    agent = seen(run)["pid"]
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        os.kill(run.supervisor, number)
    assert run.scheduler.query({run.job_id: run.layout})[0].state == JobState.RUNNING
    os.kill(agent, 0)
    go(run)
    assert run.await_event("supervisor_ended").fields == {"rc": 0}
    assert run.scheduler.query({run.job_id: run.layout})[0].state == JobState.COMPLETED


# What `ptx submit --follow` does: submit, then stay at the terminal.
CLIENT = """
import sys, time
from pathlib import Path
from orchestrator.render.bundle import Bundle
from orchestrator.runs.layout import RunLayout
from orchestrator.schedulers.local import Local
local, layout = Local(), RunLayout(Path(sys.argv[1]))
local.submit(Bundle(layout.run_id, layout.root, "local", (), local.submit_argv(layout)), layout)
print("submitted", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("end", ["ctrl-c", "hang-up"])
def test_the_run_outlives_a_real_terminal(make_run: MakeRun, end: str) -> None:
    run = make_run()
    client, terminal = pty.fork()
    if client == 0:
        os.environ["PYTHONPATH"] = str(CHECKOUT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # below nohup it is ignored
        argv = [sys.executable, "-c", CLIENT, str(run.layout.root)]
        os.execv(argv[0], argv)  # noqa: S606 - what pty.fork is for
    shown = b""
    while b"submitted" not in shown:
        shown += os.read(terminal, 4096)
    if end == "ctrl-c":
        os.write(terminal, b"\x03")
    else:
        os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(client, 0)[1])
    assert status == (-signal.SIGINT if end == "ctrl-c" else -signal.SIGHUP)
    os.kill(seen(run)["pid"], 0)
    go(run)
    assert run.await_event("supervisor_ended").fields == {"rc": 0}


def test_the_agent_gets_attempt_node_environment_and_default_signals(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_MARK", "outer:0:0")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("MINE", "a b\tc=é")
    run = make_run()
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as after `ptx submit &` in a script
    try:
        run.submit()
    finally:
        signal.signal(signal.SIGINT, previous)
    agent = seen(run)
    go(run)
    assert agent["argv"] == [
        "node",
        f"--parent-death={run.supervisor}",
        str(run.layout.plan),
    ]
    assert agent["env"]["PTX_ATTEMPT"] == agent["env"]["PTX_NODE_RANK"] == "0"
    assert agent["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert agent["env"]["MINE"] == "a b\tc=é"
    assert not {"PTX_MARK", "SLURM_JOB_ID", "RANK"} & agent["env"].keys()
    assert int(agent["blocked"], 16) == 0
    ignored = {n for n in range(1, 65) if int(agent["ignored"], 16) >> n - 1 & 1}
    # Python itself ignores two once it runs; 32 and 33 are the C library's own.
    assert ignored <= {signal.SIGPIPE, signal.SIGXFSZ, 32, 33}


def test_nothing_of_the_persons_folder_shadows_ptx(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("orchestrator/__init__.py", "json.py", "launchers/__init__.py"):
        trap = tmp_path / "project" / name
        trap.parent.mkdir(parents=True, exist_ok=True)
        trap.write_text("raise SystemExit('shadowed')")
    here = tmp_path / "here"
    here.mkdir()
    (here / "orchestrator").mkdir()
    (here / "orchestrator/__init__.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("PYTHONPATH", f".:{here}")
    run = make_run()
    run.submit()
    assert seen(run)["env"]["PYTHONPATH"] == f".:{here}"
    go(run)
    assert run.await_event("supervisor_ended").fields == {"rc": 0}


def test_two_runs_on_cpu_run_side_by_side(make_run: MakeRun) -> None:
    first, second = make_run("demo-0001"), make_run("demo-0002")
    first.submit()
    second.submit()
    assert seen(first)["pid"] != seen(second)["pid"]
    for run in (first, second):
        assert not run.events("waiting_for_gpus")
        go(run)
        assert run.await_event("supervisor_ended").fields == {"rc": 0}


def test_cancel_reaches_the_agent(make_run: MakeRun) -> None:
    run = make_run()
    run.submit()
    seen(run)
    run.cancel()
    assert run.await_event("supervisor_ended").fields == {"rc": 43}
    until(lambda: not run.processes(), "the end of all processes")
    run.cancel()  # gone already: no error


def test_a_run_of_another_machine_is_not_cancelled_but_named(make_run: MakeRun) -> None:
    run = make_run()
    record(run, **asdict(this_process()) | {"host": "elsewhere", "boot_id": "other"})
    with pytest.raises(UserError, match="elsewhere") as caught:
        run.cancel()
    assert caught.value.hint == "Type `ptx cancel demo-0001` on elsewhere."
    assert run.scheduler.query({"x": run.layout})[0].state == JobState.UNKNOWN


@pytest.mark.parametrize("change", [{"start": 1}, {"boot_id": "an earlier one"}])
def test_a_stranger_with_the_supervisors_old_pid_is_left_alone(
    make_run: MakeRun, change: dict[str, object]
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        run = make_run()
        start = start_time(stranger.pid)
        record(run, **asdict(this_process()) | {"pid": stranger.pid, "start": start} | change)
        run.cancel()
        assert run.scheduler.query({"x": run.layout})[0].state == JobState.UNKNOWN
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


def record(run: LocalRun, **fields: object) -> None:
    line = json.dumps({"v": 1, "t": 1.0, "type": "supervisor_started", **fields})
    (run.layout.events / "supervisor.jsonl").write_text(line + "\n")


def test_a_run_whose_client_died_is_found_by_its_id(make_run: MakeRun) -> None:
    run = make_run("lost-0001")
    assert run.scheduler.find("lost-0001") is None
    job_id = run.submit()
    assert run.scheduler.find("lost-0001") == job_id
    assert run.scheduler.find("lost-000") is None
    go(run)
    run.await_event("supervisor_ended")
    until(lambda: run.scheduler.find("lost-0001") is None, "the supervisor's end")


def test_a_client_killed_while_it_waits_for_the_answer_leaves_the_run_going(
    make_run: MakeRun,
) -> None:
    run = make_run()
    argv = run.scheduler.submit_argv(run.layout)
    read, write = os.pipe()
    os.close(read)
    with run.layout.scheduler_log.open("wb") as log:
        subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=write, stderr=log, cwd="/", check=True
        )
    os.close(write)
    seen(run)
    go(run)
    assert run.await_event("supervisor_ended").fields == {"rc": 0}


def test_a_supervisor_costs_little_memory(make_run: MakeRun) -> None:
    run = make_run()
    run.submit()
    seen(run)
    status = Path(f"/proc/{run.supervisor}/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0])
    go(run)
    assert resident < 24 * 1024  # kB


def test_files_are_the_persons_alone(make_run: MakeRun) -> None:
    run = make_run()
    run.submit()
    go(run)
    run.await_event("supervisor_ended")
    for path in (run.layout.scheduler_log, run.layout.events / "supervisor.jsonl"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_files_of_a_shared_run_are_the_groups(make_run: MakeRun) -> None:
    run = make_run()
    for folder in (run.layout.root, run.layout.events):
        folder.chmod(0o2770)
    run.submit()
    go(run)
    run.await_event("supervisor_ended")
    for path in (run.layout.scheduler_log, run.layout.events / "supervisor.jsonl"):
        assert path.stat().st_mode & 0o777 == 0o660


def test_the_target_is_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    target = Local().target(JobSpec.model_validate({"name": "x", "entrypoint": {"command": ["x"]}}))
    assert target.python == sys.executable
    assert target.workdir == tmp_path
    assert target.gpus == 0
    assert 1 <= target.cpus <= len(os.sched_getaffinity(0))
