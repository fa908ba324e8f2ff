"""Whatever is killed, nothing of the run is left, and what is on disk says what happened."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.node_run import LAUNCHING, NodeRun, is_alive, parent_of, until

PLAIN = "import time; print('ready'); time.sleep(3600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PLAIN
DAEMONS = """
import os, signal, sys, time
from pathlib import Path
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # exec without the environment: no mark, only the descent is left
        os.execve("/bin/sh", ["sh", "-c", "trap '' TERM; echo $$ >%s/daemon-%s; sleep 3600 & wait"
            % (os.environ["PTX_NODE_DIR"], os.environ["RANK"])], {"PATH": os.environ["PATH"]})
    os._exit(0)
os.wait()
daemon = Path(os.environ["PTX_NODE_DIR"], "daemon-" + os.environ["RANK"])
while not (daemon.exists() and daemon.read_text()):
    time.sleep(0.01)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready")
time.sleep(3600)
"""
KINDS = {"plain": PLAIN, "stubborn": STUBBORN, "daemons": DAEMONS}

Make = Callable[..., NodeRun]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    runs: list[NodeRun] = []

    def one(rank: str, launch: str | None = None, **plan: Any) -> NodeRun:
        runs.append(NodeRun(tmp_path, rank, launch, **plan))
        return runs[-1]

    yield one
    for run in runs:
        run.destroy()


def agent_of(run: NodeRun) -> int:
    assert run.agent is not None
    return run.agent.pid


VICTIMS: dict[str, Callable[[NodeRun], int]] = {
    "agent": agent_of,
    "launcher": NodeRun.launcher,
    "shim": lambda run: run.shims()[0],
    "rank": lambda run: run.ranks()[0],
}


def daemons_of(run: NodeRun) -> list[int]:
    pids = [int(path.read_text()) for path in run.node.glob("daemon-*")]
    return pids + [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and parent_of(int(entry.name)) in pids
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "kind"),
    [*((victim, "daemons") for victim in VICTIMS), ("agent", "plain"), ("launcher", "plain")],
)
def test_kill_9_leaves_no_process(make: Make, victim: str, kind: str) -> None:
    run = make(KINDS[kind]).start()
    run.until_ready()
    daemons = daemons_of(run)
    assert len(run.shims()) == len(run.ranks()) == 2
    assert all(map(is_alive, daemons))
    assert bool(daemons) == (kind == "daemons")

    pid = VICTIMS[victim](run)
    os.kill(pid, signal.SIGKILL)
    code = run.wait() if victim == "agent" else None
    run.assert_nothing_left_soon(also=[pid, *daemons])
    assert code is None or code == -signal.SIGKILL
    if victim != "agent":
        assert run.wait() == 1


def test_sigterm_to_the_agent_ends_the_ranks_with_time_to_save(make: Make) -> None:
    run = make(
        "import signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.5); print('saved'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n" + PLAIN
    ).start()
    run.until_ready()
    os.kill(agent_of(run), signal.SIGTERM)
    assert run.wait() == 0
    run.assert_nothing_left_soon()
    assert all("o saved" in log for log in run.logs().values())
    ended = run.ended()
    assert (ended["reason"], ended["ranks"]) == ("stopped", {"0": 0, "1": 0})
    assert ended["first_failure"] is None


@pytest.mark.parametrize("kind", ["stubborn", "daemons"])
def test_sigterm_to_the_agent_ends_what_ignores_it(make: Make, kind: str) -> None:
    run = make(KINDS[kind], grace_seconds=1).start()
    run.until_ready()
    daemons = daemons_of(run)
    os.kill(agent_of(run), signal.SIGTERM)
    assert run.wait() == 1
    run.assert_nothing_left_soon(also=daemons)
    ended = run.ended()
    assert ended["reason"] == "terminated"
    assert ended["first_failure"] is None
    assert ended["ranks"] == {"0": -signal.SIGKILL, "1": -signal.SIGKILL}


def test_a_launcher_without_ranks_is_ended_without_waiting_for_the_grace(make: Make) -> None:
    run = make(PLAIN, LAUNCHING + "sleep 3600\n", grace_seconds=3600).start()
    until(lambda: (run.node / "launching").exists(), "the launcher", run.story)
    os.kill(agent_of(run), signal.SIGTERM)
    assert run.wait() == 1
    run.assert_nothing_left_soon()
    assert run.ended()["reason"] == "terminated"


@pytest.mark.slow
def test_a_failing_rank_ends_the_others_when_the_launcher_does_not(make: Make) -> None:
    """The bash launcher waits for ever; the agent gives it 15 s."""
    run = make(
        "import os, time\nprint('ready')\n"
        "if os.environ['RANK'] == '1': raise RuntimeError('no such shard')\ntime.sleep(3600)"
    ).start()
    run.until_ready()
    assert run.wait() == 1
    run.assert_nothing_left_soon()
    ended = run.ended()
    assert ended["reason"] == "rank-failed"
    assert ended["first_failure"]["rank"] == 1
    assert ended["first_failure"]["message"] == "RuntimeError: no such shard"
    assert ended["ranks"] == {"0": -signal.SIGTERM, "1": 1}


@pytest.mark.slow
def test_a_killed_rank_is_the_first_failure(make: Make) -> None:
    run = make(PLAIN).start()
    run.until_ready()
    os.kill(run.ranks()[0], signal.SIGKILL)
    assert run.wait() == 1
    first = run.ended()["first_failure"]
    assert (first["code"], first["signal"], first["message"]) == (-9, 9, "ended by SIGKILL")


def test_a_killed_launcher_is_a_launch_failure_and_every_rank_leaves_a_record(make: Make) -> None:
    run = make(PLAIN).start()
    run.until_ready()
    os.kill(run.launcher(), signal.SIGKILL)
    assert run.wait() == 1
    run.assert_nothing_left_soon()
    assert {record["orphaned_by"] for record in run.records().values()} == {"launcher"}
    ended = run.ended()
    assert (ended["reason"], ended["first_failure"]) == ("launch-failed", None)
    assert ended["message"] == "the launcher was ended by SIGKILL"


def test_a_killed_agent_leaves_every_rank_its_record(make: Make) -> None:
    run = make(PLAIN).start()
    run.until_ready()
    os.kill(agent_of(run), signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    run.assert_nothing_left_soon()
    records = run.records()
    assert {record["orphaned_by"] for record in records.values()} == {"agent"}
    assert [records[rank]["signal"] for rank in (0, 1)] == [signal.SIGTERM] * 2
    assert run.events("node_ended") == []


def test_the_agent_ends_with_the_supervisor(make: Make) -> None:
    run = make(PLAIN)
    pid = os.fork()
    if pid == 0:
        argv = [*run.argv[:5], "--parent-death", run.argv[5]]
        if os.fork() == 0:
            os.execv(argv[0], argv)  # noqa: S606 - an argument list
        signal.pause()
        os._exit(0)
    run.until_ready()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    run.assert_nothing_left_soon()
    until(lambda: run.events("node_ended"), "node_ended", run.story)
    assert run.ended()["reason"] == "stopped"


@pytest.mark.parametrize("run_id", [{}, {"run_id": "x-12"}], ids=["other id", "same id"])
def test_another_run_and_a_bystander_are_left_alone(make: Make, run_id: dict[str, str]) -> None:
    # Two clusters give out one job id: the runs' folders tell such runs apart.
    run = make(PLAIN, **run_id).start()
    other = make(PLAIN, **run_id).start()  # the younger: an agent looks at no older process
    other.until_ready()
    before = other.marked()
    run.until_ready()
    os.kill(agent_of(run), signal.SIGTERM)
    run.wait()
    run.assert_nothing_left_soon()
    assert len(before) >= 5
    assert other.marked().keys() == before.keys()
    assert is_alive(agent_of(other))


def test_a_stray_of_the_launcher_is_ended(make: Make) -> None:
    launch = '(setsid sleep 3600 & echo $! >"$PTX_NODE_DIR/stray")\n' + LAUNCHING
    run = make(PLAIN, launch).start()
    assert run.wait() == 1
    assert not is_alive(int((run.node / "stray").read_text()))
    assert run.ended()["reason"] == "launch-failed"


def test_a_process_that_got_away_is_found_by_its_mark(make: Make) -> None:
    run = make(PLAIN).start()
    run.until_ready()
    # A child of ours, so the agent has no other way to know it.
    stray = subprocess.Popen(["sleep", "3600"], env={**os.environ, "PTX_MARK": run.mark})
    other = subprocess.Popen(["sleep", "3600"], env={**os.environ, "PTX_MARK": run.mark + "0"})
    try:
        until(lambda: stray.pid in run.marked(), "the stray bears the mark")
        os.kill(agent_of(run), signal.SIGTERM)
        run.wait()
        assert stray.wait(10) == -signal.SIGTERM
        assert other.poll() is None
    finally:
        for process in (stray, other):
            process.kill()
            process.wait()
