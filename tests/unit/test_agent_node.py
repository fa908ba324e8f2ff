"""One real agent with a hand-written launch.sh, from start to node_ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.node_run import LAUNCHING, SHIM, NodeRun, bash_launcher, until

Make = Callable[..., NodeRun]
DUMP = 'env -0 >"$PTX_NODE_DIR/env"\n'


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    runs: list[NodeRun] = []

    def one(rank: str = "", launch: str | None = None, **plan: Any) -> NodeRun:
        runs.append(NodeRun(tmp_path, rank, launch, **plan))
        return runs[-1]

    yield one
    for run in runs:
        run.destroy()


def environment(run: NodeRun, node: str = "000/node-0000") -> dict[str, str]:
    data = (run.root / "attempts" / node / "env").read_bytes()
    pairs = [os.fsdecode(item).partition("=") for item in data.split(b"\0") if item]
    return {name: value for name, _, value in pairs}


def test_a_run_whose_ranks_all_end_with_0_is_completed(make: Make) -> None:
    run = make("print('hello')").start()
    assert run.wait() == 0, run.story()
    (started,) = run.events("node_started")
    assert started["pid"] == run.agent.pid if run.agent else False
    ended = run.ended()
    assert ended["reason"] == "completed"
    assert ended["ranks"] == {"0": 0, "1": 0}
    assert (ended["rc"], ended["first_failure"], ended["message"]) == (0, None, None)
    assert [record["exit_code"] for record in run.records().values()] == [0, 0]
    assert not run.marked()


def test_the_launchers_own_exit_code_says_nothing(make: Make) -> None:
    failed = make("print('hello')", bash_launcher() + "exit 3\n").start()
    assert failed.wait() == 0
    assert failed.ended()["reason"] == "completed"
    silent = make("", LAUNCHING + "exit 0\n").start()
    assert silent.wait() == 1
    assert silent.ended()["reason"] == "launch-failed"
    assert silent.ended()["message"] == "the launcher ended with code 0"


def test_a_rank_that_left_no_record_is_a_launch_failure(make: Make) -> None:
    run = make("", bash_launcher(1)).start()
    assert run.wait() == 1
    assert (run.ended()["reason"], run.ended()["ranks"]) == ("launch-failed", {"0": 0})


def test_a_failing_setup_line_is_told_from_a_failing_launcher(make: Make) -> None:
    run = make("", "echo no module >&2\nexit 7\n").start()
    assert run.wait() == 1
    ended = run.ended()
    assert ended["reason"] == "setup-failed"
    how = "launch.sh ended with code 7 before it came to the launcher"
    assert ended["message"] == f"{how}: no module"
    log = (run.node / "launcher.log").read_text()
    assert log == f"no module\nptx: {how}\n"


@pytest.mark.parametrize(
    ("launch", "told"),
    [
        ("echo ptx: setup line 1 failed >&2; exit 1", "setup line 1 failed"),
        (
            LAUNCHING + "echo No module named torch; echo ===; exit 1",
            "code 1: No module named torch",
        ),
        (LAUNCHING + "echo ptx: node 0 of 1; exit 1", "the launcher ended with code 1"),
    ],
)
def test_a_failed_launch_is_told_in_its_own_last_words(make: Make, launch: str, told: str) -> None:
    run = make("", f"{launch}\n").start()
    assert run.wait() == 1
    assert run.ended()["message"].endswith(told)


def test_what_the_node_lacks_ends_it_before_launch(make: Make) -> None:
    run = make("", workdir="/no/such/folder", gpus_per_node=2).start(CUDA_VISIBLE_DEVICES="0")
    assert run.wait() == 1
    assert run.agent is not None
    assert run.agent.stderr is not None
    stderr = run.agent.stderr.read()
    ended = run.ended()
    assert ended["reason"] == "check-failed"
    assert len(ended["message"].splitlines()) == 2
    for place in (stderr, (run.node / "launcher.log").read_text()):
        assert "wants 2 a node" in place
        assert "/no/such/folder" in place
    assert not (run.node / "launching").exists()


def test_the_environment_of_launch_sh(make: Make) -> None:
    run = make("", DUMP + "exit 1\n")
    run.start(PTX_DEVICES="9", PTX_MARK="outer", CUDA_VISIBLE_DEVICES="5", HOSTILE="a\nb=$(x)'")
    run.wait()
    env = environment(run)
    assert env["PTX_RUN_ID"] == run.run_id
    assert env["PTX_RUN_DIR"] == str(run.root)
    assert env["PTX_BUNDLE"] == str(run.bundle)
    assert env["PTX_PLAN"] == str(run.bundle / "plan.json")
    assert env["PTX_NODE_DIR"] == str(run.node)
    assert (env["PTX_ATTEMPT"], env["PTX_NODE_RANK"]) == ("0", "0")
    assert env["PTX_MARK"] == run.mark
    assert run.agent is not None
    assert env["PTX_AGENT_PID"] == str(run.agent.pid)
    assert int(env["PTX_AGENT_START"]) > 0
    assert "PTX_DEVICES" not in env
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["HOSTILE"] == "a\nb=$(x)'"
    with socket.socket() as probe:
        probe.bind(("", int(env["PTX_PORT"])))
    assert 1024 < int(env["PTX_PORT"]) < 29500


def test_the_devices_are_handed_on_as_they_were(make: Make) -> None:
    run = make("", DUMP, gpus_per_node=2).start(CUDA_VISIBLE_DEVICES="GPU-a,MIG-b")
    run.wait()
    assert environment(run)["PTX_DEVICES"] == "GPU-a,MIG-b"


def test_the_supervisor_says_which_attempt_it_is_and_slurm_which_node(make: Make) -> None:
    run = make("", DUMP, scheduler="slurm")
    run.start(SLURM_RESTART_COUNT="2", SLURM_NODEID="3", PTX_ATTEMPT="7")
    run.wait()
    env = environment(run, "007/node-0003")
    assert env["PTX_MARK"] == f"{run.run_id}:7:3:{run.root}"
    assert "PTX_PORT" not in env
    events = (run.root / "events/a007-node-0003.jsonl").read_text().splitlines()
    assert {(json.loads(line)["attempt"], json.loads(line)["node"]) for line in events} == {(7, 3)}


def test_a_local_run_inside_an_allocation_is_not_mistaken_for_slurms(make: Make) -> None:
    run = make("", DUMP).start(SLURM_RESTART_COUNT="2", SLURM_NODEID="3", PTX_ATTEMPT="1")
    run.wait()
    assert environment(run, "001/node-0000")["PTX_MARK"] == f"{run.run_id}:1:0:{run.root}"


def test_secrets_reach_the_rank_and_no_file(make: Make) -> None:
    value = "hunter2 $(x)\n'é"
    run = make("import os; print(len(os.environ['TOKEN']))", secrets=["TOKEN"])
    (run.root / "secrets").write_bytes(f"TOKEN={value}\0OTHER=x\0".encode())
    run.start()
    assert run.wait() == 0
    assert all(log.endswith(f"o {len(value)}\n") for log in run.logs().values())
    for path in run.root.rglob("*"):
        if path.is_file() and path.name != "secrets":
            assert b"hunter2" not in path.read_bytes(), path


@pytest.mark.parametrize("content", [None, b"OTHER=x\0"])
def test_a_missing_secret_is_said_before_launch(make: Make, content: bytes | None) -> None:
    run = make("", secrets=["TOKEN"])
    if content is not None:
        (run.root / "secrets").write_bytes(content)
    assert run.start().wait() == 1
    assert run.ended()["reason"] == "check-failed"
    assert "secret" in run.ended()["message"]


def test_sigusr2_is_recorded_and_reaches_nobody(make: Make) -> None:
    run = make("import time; print('ready'); time.sleep(3600)").start()
    run.until_ready()
    assert run.agent is not None
    before = run.marked()
    for pid in (run.agent.pid, *before):  # as SLURM does
        os.kill(pid, signal.SIGUSR2)
    until(lambda: run.events("signal"), "the event", run.story)
    assert run.events("signal")[0]["name"] == "SIGUSR2"
    assert run.marked().keys() == before.keys()
    assert run.agent.poll() is None


def test_the_heartbeat_is_64_bytes(make: Make) -> None:
    run = make("").start()
    assert run.wait() == 0
    data = (run.node / "heartbeat").read_bytes()
    assert len(data) == 64
    assert data.endswith(b" \n")
    beat = json.loads(data)
    assert beat["seq"] == 0
    assert beat["t"] > 1.7e9


@pytest.mark.parametrize("shared", [False, True])
def test_files_and_folders_are_the_persons_or_the_groups(make: Make, shared: bool) -> None:
    run = make("open('made-by-rank', 'w').close()", group_shared=shared)
    run.plan["workdir"] = str(run.root)
    (run.bundle / "plan.json").write_text(json.dumps(run.plan))
    (run.bundle / "launch.sh").write_text(f"cd {run.root}\n" + bash_launcher())
    assert run.start().wait() == 0, run.story()
    made = [run.root / "made-by-rank", *run.node.parent.parent.rglob("*"), run.node.parent.parent]
    made += [run.root / "events", *(run.root / "events").iterdir()]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in made if path.name != "launching"}
    wanted = {True: (0o2770, 0o660), False: (0o700, 0o600)}[shared]
    assert len(modes) > 10
    assert {path: wanted[0] if path.is_dir() else wanted[1] for path in modes} == modes


def test_an_attempt_number_given_twice_inherits_no_success(make: Make) -> None:
    run = make("").start()
    assert run.wait() == 0
    (run.bundle / "launch.sh").write_text("exit 1\n")
    assert run.start().wait() == 1
    assert [event["reason"] for event in run.events("node_ended")] == ["completed", "setup-failed"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}'])
def test_a_plan_that_cannot_be_read_is_one_sentence(make: Make, text: str) -> None:
    run = make("")
    (run.bundle / "plan.json").write_text(text)
    assert run.start().wait() == 1
    assert run.agent is not None
    assert run.agent.stderr is not None
    stderr = run.agent.stderr.read()
    assert stderr.startswith("ptx: the plan ")
    assert len(stderr.splitlines()) == 1


def test_a_shim_that_still_writes_when_the_launcher_ends_is_waited_for(make: Make) -> None:
    launch = LAUNCHING + (
        f"RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 {SHIM} sh -c 'trap \"\" TERM; echo; sleep 1; exit 4' &\n"
        # Something is in its log once SIGTERM cannot end it any more.
        'until [ -s "$PTX_NODE_DIR/rank-00000.log" ]; do sleep 0.05; done; exit 0\n'
    )
    run = make("", launch, ranks=1).start()
    assert run.wait() == 1
    assert run.ended()["ranks"] == {"0": 4}


SAVES = """
import json, os, sys, time
from pathlib import Path
Path(os.environ["PTX_STEP_FILE"]).touch()
print("ready", flush=True)
stop = Path(os.environ["PTX_STOP_FILE"])
while not stop.exists():
    time.sleep(0.02)
print(json.dumps({"asked": json.loads(stop.read_text())}), flush=True)
sys.exit(143)
"""


def test_the_warning_puts_the_stop_file_there_and_the_ranks_end_as_asked(make: Make) -> None:
    run = make(SAVES, restart={"warning": 60}).start()
    run.until_ready()
    assert run.agent is not None
    os.kill(run.agent.pid, signal.SIGUSR2)
    assert run.wait() == 0, run.story()
    ended = run.ended()
    assert (ended["reason"], ended["ranks"]) == ("stopped", {"0": 143, "1": 143})
    assert (ended["first_failure"], ended["stepped"]) == (None, True)
    (log, _) = run.logs().values()
    asked = json.loads(log[log.index("{") :])["asked"]
    assert (asked["v"], asked["reason"]) == (1, "time-limit")
    assert asked["by"] > run.events("signal")[0]["t"]


def test_the_stop_folder_is_the_persons_alone_and_goes_with_the_agent(make: Make) -> None:
    launch = 'stat -c "%a %n" "$(dirname "$PTX_STOP_FILE")" >"$PTX_NODE_DIR/folder"\n'
    run = make("", launch + bash_launcher()).start()
    assert run.wait() == 0
    mode, _, folder = (run.node / "folder").read_text().strip().partition(" ")
    assert mode == "700"
    assert not Path(folder).exists()
    assert not Path(folder).is_relative_to(run.root)


def test_ranks_that_let_the_warning_pass_are_ended_in_time_for_the_queue(make: Make) -> None:
    run = make("import time; print('ready', flush=True); time.sleep(3600)", restart={"warning": 2})
    run.start()
    run.until_ready()
    assert run.agent is not None
    os.kill(run.agent.pid, signal.SIGUSR2)
    run.wait()
    assert "time limit is near" in run.ended()["message"]
    assert not run.marked()


@pytest.mark.parametrize(
    "launch",
    ["sleep 3600 & wait\n", f"{LAUNCHING}sleep 3600 & wait\n"],
    ids=["setup", "launcher"],
)
def test_a_launch_that_the_time_limit_cuts_off_is_no_launch_that_failed(
    make: Make, launch: str
) -> None:
    """On a busy node ranks may need longer to begin than the time that is left."""
    run = make("", f': >"$PTX_NODE_DIR/begun"\n{launch}', restart={"warning": 2}).start()
    until((run.node / "begun").exists, "launch.sh at work", run.story)
    assert run.agent is not None
    os.kill(run.agent.pid, signal.SIGUSR2)
    assert run.wait() == 1
    ended = run.ended()
    assert (ended["reason"], ended["ranks"]) == ("terminated", {})
    assert "time limit is near" in ended["message"]
    assert not run.marked()


def test_ranks_without_a_step_for_too_long_hang(make: Make) -> None:
    rank = (
        "import os, time; from pathlib import Path\n"
        "Path(os.environ['PTX_STEP_FILE']).touch()\n"
        "time.sleep(3600)\n"
    )
    run = make(rank, restart={"hang_after": 1}).start()
    assert run.wait() == 1
    ended = run.ended()
    assert (ended["reason"], ended["first_failure"]) == ("hang", None)
    assert "no rank here made a step for 1 s" in ended["message"]


def test_before_the_first_step_nothing_hangs(make: Make) -> None:
    run = make("import time; time.sleep(3)", restart={"hang_after": 1}).start()
    assert run.wait() == 0
    assert run.ended()["stepped"] is False
