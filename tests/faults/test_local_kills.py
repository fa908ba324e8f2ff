"""kill -9 of supervisor or agent: the real agent, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_runs import LocalRun, until

from orchestrator.agent.archive import agent_archive
from orchestrator.schedulers.base import JobState

# What training leaves about: a process in a session of its own, and one that has dropped the
# run's mark with the rest of its environment.
LAUNCH = """
root=$(dirname "$PTX_BUNDLE")
setsid bash -c 'exec -a "$0/stray-session" sleep 1000' "$root" &
env -i setsid bash -c 'exec -a "$0/stray-unmarked" sleep 1000' "$root" &
trap '' TERM
while :; do sleep 0.1; done
"""
STRAYS = ("stray-session", "stray-unmarked")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[LocalRun]:
    run = LocalRun(tmp_path / "runs", "demo-0001", agent_archive(), grace=1)
    (run.layout.bundle / "launch.sh").write_text(LAUNCH)
    run.submit()
    until(lambda: len(strays(run)) == 2, "the strays", run.log)
    yield run
    run.end()


def strays(run: LocalRun) -> dict[int, str]:
    lines = run.processes().items()  # one that is just ending has none
    return {pid: line for pid, line in lines if line.partition(" ")[0].endswith(STRAYS)}


def test_a_killed_agent_leaves_no_process_and_the_supervisor_says_so(run: LocalRun) -> None:
    agent = run.await_event("node_started").integer("pid")
    os.kill(agent, signal.SIGKILL)
    ended = run.await_event("supervisor_ended")
    assert ended.fields == {"rc": -signal.SIGKILL}
    assert not strays(run)  # it says so only when all is over
    until(lambda: not run.processes(), "the supervisor's own end")
    assert run.scheduler.query({run.job_id: run.layout})[0].state == JobState.FAILED


def test_a_killed_supervisor_leaves_no_process(run: LocalRun) -> None:
    os.kill(run.supervisor, signal.SIGKILL)
    until(lambda: not run.processes(), "the end of all processes", lambda: str(run.processes()))
    assert not run.events("supervisor_ended")
    assert run.scheduler.query({run.job_id: run.layout})[0].state == JobState.UNKNOWN


def test_cancel_leaves_no_process(run: LocalRun) -> None:
    run.cancel()
    assert run.await_event("supervisor_ended").fields["rc"] != 0
    until(lambda: not run.processes(), "the end of all processes", lambda: str(run.processes()))


@pytest.mark.slow
def test_an_agent_that_hangs_does_not_stop_cancel(run: LocalRun) -> None:
    agent = run.await_event("node_started").integer("pid")
    os.kill(agent, signal.SIGSTOP)
    run.cancel()
    assert run.await_event("supervisor_ended").fields == {"rc": -signal.SIGKILL}
    until(lambda: not run.processes(), "the end of all processes", lambda: str(run.processes()))


@pytest.mark.slow
def test_cancel_ends_what_is_left_when_supervisor_and_agent_were_both_killed(
    run: LocalRun,
) -> None:
    def left() -> list[str]:
        return [line for line in strays(run).values() if "stray-session" in line]

    agent = run.await_event("node_started").integer("pid")
    until(left, "the stray's start", lambda: str(strays(run)))
    os.kill(agent, signal.SIGSTOP)  # so that it cannot react to the death of the supervisor
    for pid in (run.supervisor, agent):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert left(), "the kills were meant to leave something"
    run.cancel()
    assert not left()
