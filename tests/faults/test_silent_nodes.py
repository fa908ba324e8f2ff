"""A node whose agent is frozen together with its ranks: nobody there can notice, its run's
supervisor does. Real supervisors, agents and SIGSTOP; hearts that beat faster than they do."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from local_runs import LocalRun, until
from support.node_run import NodeRun, bash_launcher
from support.slurm_site import Site

from orchestrator.agent.archive import agent_archive
from orchestrator.agent.processes import descendants, process_table
from orchestrator.schedulers import local

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HANG_AFTER = 8
QUICK = "from orchestrator.agent import silence; silence.INTERVAL = 1.0; "
BEATS = (b"INTERVAL = 30.0", b"INTERVAL = 0.2")
TALKS_AT_FIRST = """
import os, time
print("ready", flush=True)
while os.environ["PTX_ATTEMPT"] == "0":
    time.sleep(0.2)
    print("a step", flush=True)
"""


def quick_agent() -> bytes:
    """The agent with a heart that beats five times a second."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(agent_archive())) as archive,
        zipfile.ZipFile(buffer, "w") as quick,
    ):
        for name in archive.namelist():
            text = archive.read(name)
            if name.endswith("/heartbeat.py"):
                assert BEATS[0] in text
                text = text.replace(*BEATS)
            quick.writestr(name, text)
    return buffer.getvalue()


def freeze(agent: int) -> list[int]:
    """Stop this process and all below it, until every one of them is stopped; which they are."""

    def all_stopped() -> list[int]:
        below = descendants(agent, process_table())
        pids = [agent, *(process.pid for process in below if state(process.pid) != "Z")]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return pids if {state(pid) for pid in pids} == {"T"} else []

    frozen = until(all_stopped, "a frozen node")
    assert len(frozen) >= 4, "agent, launcher, shim, rank"
    return frozen


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalRun]:
    found, begins = local._START.split("from orchestrator.schedulers")
    monkeypatch.setattr(local, "_START", f"{found}{QUICK}from orchestrator.schedulers{begins}")
    run = LocalRun(tmp_path / "runs", "frozen-0001", quick_agent(), grace=2)
    plan = json.loads(run.layout.plan.read_text())
    plan["python"] = sys.executable
    plan["restart"] = {"max": 0, "on": ["node-failure"], "backoff": 0.2, "hang_after": HANG_AFTER}
    run.layout.plan.write_text(json.dumps(plan))
    (run.layout.bundle / "launch.sh").write_text(bash_launcher(1))
    (run.layout.bundle / "rank.py").write_text(TALKS_AT_FIRST)
    yield run
    run.end()


def test_a_local_run_that_is_frozen_is_started_again_and_comes_through(here: LocalRun) -> None:
    here.submit()
    agent = here.await_event("node_started").integer("pid")
    log = here.layout.rank_log(0, 0, 0)
    until(lambda: log.exists() and "a step" in log.read_text(), "the rank", here.log)
    frozen = freeze(agent)
    assert here.await_event("supervisor_ended").fields == {"rc": 0}
    first, second = here.events("attempt_ended")
    assert (first.text("class"), first.fields["retry"]) == ("node-failure", True)
    told = f"node 0 ({os.uname().nodename}) has given no sign of life for "
    assert first.text("message").startswith(told) and told in here.log()
    assert second.text("class") == "completed"
    assert not [pid for pid in frozen if state(pid) not in ("gone", "Z")]


SRUN = f"""
for node in 0 1; do
    PTX_NODE_RANK=$node {sys.executable} -I -S bundle/agent.pyz node bundle/plan.json &
    echo $! >> steps
done
wait
"""
SCANCEL = """
[ "$*" = "--signal=KILL 7.0" ] || exit 1
for agent in $(cat steps); do kill -KILL $agent; done
"""
SUPERVISOR = f"{QUICK}from orchestrator.agent import step_watch; step_watch._LAST_WORDS = 30.0; "
SUPERVISOR += "from orchestrator.agent.job import run_job; exit(run_job(%r, ['srun']))"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[NodeRun]:
    """Of two nodes, which are this machine, on a SLURM of scripts."""
    restart: dict[str, Any] = {"max": 0, "on": ["node-failure"], "backoff": 0}
    restart["hang_after"] = HANG_AFTER
    run = NodeRun(tmp_path, TALKS_AT_FIRST, bash_launcher(1), 1, nodes=2, restart=restart)
    (run.bundle / "agent.pyz").write_bytes(quick_agent())
    site = Site(run.root)
    site.command("srun", SRUN)
    site.command("squeue", "echo 7.0")
    site.command("scancel", SCANCEL)
    site.command("sinfo", "printf 'a|allocated\nb|allocated\n'")
    yield run
    for agent in (run.root / "steps").read_text().split():
        below = descendants(int(agent), process_table())
        for pid in (int(agent), *(process.pid for process in below)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    run.destroy()


def events(run: NodeRun, name: str, kind: str) -> list[dict[str, Any]]:
    path = run.root / "events" / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for line in lines if (event := json.loads(line))["type"] == kind]


def test_a_job_ends_an_attempt_in_which_a_node_is_frozen_and_blames_that_node(job: NodeRun) -> None:
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a,b", "SLURMD_NODENAME": "a"}
    env = {"PATH": f"{job.root}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)} | slurm
    code = SUPERVISOR % str(job.bundle / "plan.json")
    with (job.root / "scheduler.log").open("w") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-c", code], env=env, cwd=job.root, stdout=log, stderr=log
        )
    frozen: list[int] = []
    try:
        logs = [job.root / f"attempts/000/node-{n:04d}/rank-00000.log" for n in range(2)]
        until(
            lambda: all(x.exists() and "a step" in x.read_text() for x in logs), "ranks", job.story
        )
        (started,) = events(job, "a000-node-0001", "node_started")
        frozen = freeze(started["pid"])
        assert supervisor.wait(120) == 0, job.story()
    finally:
        supervisor.kill()
        supervisor.wait()
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    first, second = events(job, "job", "attempt_ended")
    assert (first["class"], first["retry"], first["nodes_failed"]) == ("node-failure", True, ["b"])
    assert first["message"].startswith("node 1 (b) has given no sign of life for ")
    (lived,) = events(job, "a000-node-0000", "node_ended")
    assert (lived["reason"], lived["message"]) == ("hang", "the ranks of node 1 stand still")
    assert not events(job, "a000-node-0001", "node_ended")
    assert second["class"] == "completed"
