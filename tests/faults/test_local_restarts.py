"""A local run restarts its failed ranks, a cancelled one never: the real supervisor and agent."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from local_runs import LocalRun, until
from support.node_run import bash_launcher

from orchestrator.agent.archive import agent_archive
from orchestrator.checkpoints.commit import AttemptOver, commit
from orchestrator.checkpoints.manifest import Manifest
from orchestrator.runs.events import ClientEvents
from orchestrator.schedulers.supervisor import REPLACED

CRASHES = """
import os, sys
from pathlib import Path
Path(os.environ["PTX_STEP_FILE"]).touch()
attempt = int(os.environ["PTX_ATTEMPT"])
print("attempt", attempt, flush=True)
if attempt < %d:
    raise RuntimeError(f"on purpose in attempt {attempt}")
"""
WAITS = "import time; print('ready', flush=True); time.sleep(3600)"

Make = Callable[..., LocalRun]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    runs: list[LocalRun] = []

    def one(rank: str, **restart: Any) -> LocalRun:
        run = LocalRun(tmp_path / "runs", "demo-0001", agent_archive(), grace=3)
        plan = json.loads(run.layout.plan.read_text())
        plan["python"] = sys.executable
        plan["restart"] = {"max": 0, "on": ["failed", "preempted"], "backoff": 0.2} | restart
        run.layout.plan.write_text(json.dumps(plan))
        (run.layout.bundle / "launch.sh").write_text(bash_launcher(1))
        (run.layout.bundle / "rank.py").write_text(rank)
        runs.append(run)
        return run

    yield one
    for run in runs:
        run.end()


def endings(run: LocalRun) -> list[tuple[str, bool, bool, str | None]]:
    return [
        (e.text("class"), e.fields["retry"], e.fields["counted"], e.fields["where"])
        for e in run.events("attempt_ended")
    ]


def test_failed_ranks_are_started_again_until_they_are_through(make: Make) -> None:
    run = make(CRASHES % 2, max=3)
    run.submit()
    assert run.await_event("supervisor_ended").fields == {"rc": 0}
    again = ("failed", True, True, "allocation")
    assert endings(run) == [again, again, ("completed", False, False, None)]
    starts = run.events("job_started")
    assert [event.integer("attempt") for event in starts] == [0, 1, 2]
    pauses = [
        begun.t - over.t
        for over, begun in zip(run.events("attempt_ended"), starts[1:], strict=False)
    ]
    assert pauses[0] >= 0.2
    assert pauses[1] >= 0.4


def test_the_budget_is_kept(make: Make) -> None:
    run = make(CRASHES % 9, max=1)
    run.layout.secrets.write_text("")
    run.submit()
    assert run.await_event("supervisor_ended").fields["rc"] != 0
    assert [counted for _, _, counted, _ in endings(run)] == [True, False]
    assert "restart.max (1) is used up" in run.events("attempt_ended")[-1].text("message")
    assert not run.layout.secrets.exists()


def test_an_import_that_fails_is_not_tried_again(make: Make) -> None:
    run = make("import no_such_module", max=5)
    run.submit()
    run.await_event("supervisor_ended")
    assert endings(run) == [("failed", False, False, None)]


def test_cancel_and_sigterm_never_restart(make: Make) -> None:
    run = make(WAITS, max=5)
    run.submit()
    log = run.layout.rank_log(0, 0, 0)
    until(lambda: log.exists() and "ready" in log.read_text(), "the rank", run.log)
    run.cancel()
    assert run.await_event("supervisor_ended").fields["rc"] != 0
    assert endings(run) == [("cancelled", False, False, None)]
    until(lambda: not run.processes(), "the end of all processes", lambda: str(run.processes()))


def test_cancel_between_two_attempts_ends_the_run(make: Make) -> None:
    run = make(CRASHES % 9, max=5, backoff=3600)
    run.submit()
    run.await_event("attempt_ended")
    run.cancel()
    assert run.await_event("supervisor_ended").fields["rc"] != 0
    assert len(run.events("job_started")) == 1


def test_a_run_resumed_between_two_attempts_is_left_to_its_resumption(make: Make) -> None:
    """As by `ptx resume` on another machine, which sees neither process nor heartbeat here."""
    run = make(CRASHES % 9, max=5, backoff=6)
    run.submit()
    run.await_event("attempt_ended")
    ClientEvents.claim(run.layout, 1, attempt=1)
    until(lambda: not run.processes(), "the end of all processes", lambda: str(run.processes()))
    assert REPLACED in run.log()
    assert len(run.events("job_started")) == 1
    assert not run.events("supervisor_ended")  # it would be the resumption's


def test_an_attempt_that_ends_after_a_resumption_ends_nothing_of_it(
    make: Make, tmp_path: Path
) -> None:
    """As where its heartbeats had not come to the machine on which `ptx resume` was typed."""
    gate = tmp_path / "gate"
    run = make(f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.1)")
    run.layout.secrets.write_text("")
    run.submit()
    run.await_event("node_started")
    ClientEvents.claim(run.layout, 1, attempt=1)
    gate.touch()
    until(lambda: not run.processes(), "the end of all processes", lambda: str(run.processes()))
    assert endings(run) == [("completed", False, False, None)]
    assert not run.events("supervisor_ended")
    assert run.layout.secrets.exists()


def test_a_run_whose_processes_were_all_killed_is_started_again(make: Make) -> None:
    """Agent, launcher, shim and rank at once; only the supervisor lives."""
    run = make(WAITS, on=["node-failure"])
    run.submit()
    agent = run.await_event("node_started").integer("pid")
    log = run.layout.rank_log(0, 0, 0)
    until(lambda: log.exists() and "ready" in log.read_text(), "the rank", run.log)
    killed = {agent, *run.processes()} - {run.supervisor}
    assert len(killed) >= 4
    for pid in sorted(killed):
        with suppress(ProcessLookupError):  # it may have died with the agent
            os.kill(pid, signal.SIGKILL)
    until(lambda: len(run.events("node_started")) == 2, "the second attempt", run.log)
    assert endings(run) == [("node-failure", True, False, "allocation")]
    assert run.events("attempt_ended")[0].fields["nodes_failed"] == []
    run.cancel()
    run.await_event("supervisor_ended")


def test_what_a_killed_agent_has_left_cannot_commit(make: Make) -> None:
    run = make(WAITS, on=["node-failure"])
    run.submit()
    agent = run.await_event("node_started").integer("pid")
    os.kill(agent, signal.SIGKILL)
    until(lambda: len(run.events("node_started")) == 2, "the second attempt", run.log)
    assert endings(run) == [("node-failure", True, False, "allocation")]
    folder = run.layout.checkpoints / "step-00000001.a000"
    folder.mkdir(parents=True)
    manifest = Manifest(run.layout.run_id, 1, 0, 0.0, 1, {}, {}, (), {})
    with pytest.raises(AttemptOver):
        commit(folder, manifest, run.layout.root / "attempts")
    run.cancel()
    run.await_event("supervisor_ended")
