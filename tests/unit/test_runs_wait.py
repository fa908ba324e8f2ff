"""Waiting for ends that are not certain at once."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from support.made_runs import MadeRun

from orchestrator.errors import WaitTimedOut
from orchestrator.runs import wait
from orchestrator.runs.observe import Observed
from orchestrator.runs.state import State


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "LOOK_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(wait, "ASK_SECONDS", (0.02, 0.02))
    monkeypatch.setattr(wait, "SETTLE_SECONDS", 0.1)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for SLURM's commands; sacct tells what the returned file holds."""
    tools, answer = tmp_path / "bin", tmp_path / "answer"
    tools.mkdir()
    answer.write_text("")
    (tools / "scontrol").write_text("#!/bin/sh\necho 'Slurmctld(primary) at h is UP'\n")
    (tools / "squeue").write_text("#!/bin/sh\n")
    (tools / "sacct").write_text(f"#!/bin/sh\ncat {answer}\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return answer


def waited(run: MadeRun, limit: float = 20) -> Observed:
    return wait.wait_for(run.layout, deadline=time.monotonic() + limit, tell=lambda _: None)


def test_a_preemption_is_believed_when_nothing_follows_it(tmp_path: Path, slurm: Path) -> None:
    run = MadeRun(tmp_path, "r-aaaaaa", scheduler="slurm").submitted("12").started()
    slurm.write_text("12|PREEMPTED|0:15|None\n")
    assert waited(run).state.state is State.PREEMPTED


def test_a_requeue_after_a_preemption_is_waited_for(
    tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "SETTLE_SECONDS", 60.0)
    run = MadeRun(tmp_path, "r-aaaaaa", scheduler="slurm").submitted("12").started()
    slurm.write_text("12|PREEMPTED|0:15|None\n")
    seen: list[State] = []

    def come_back() -> None:
        while State.PREEMPTED not in seen:
            time.sleep(0.01)
        run.started(attempt=1, t=100).ended([0, 0], attempt=1, t=200)

    back = threading.Thread(target=come_back)
    back.start()
    deadline = time.monotonic() + 30
    end = wait.wait_for(
        run.layout, deadline=deadline, tell=lambda seen_run: seen.append(seen_run.state.state)
    )
    back.join()
    assert (end.state.state, end.state.attempt) == (State.COMPLETED, 1)


def test_a_job_that_slurm_has_forgotten_does_not_keep_one_waiting(
    tmp_path: Path, slurm: Path
) -> None:
    run = MadeRun(tmp_path, "r-aaaaaa", scheduler="slurm").submitted("12").started()
    assert waited(run).state.state is State.UNKNOWN


def test_a_slurm_that_does_not_answer_is_waited_for(tmp_path: Path, slurm: Path) -> None:
    run = MadeRun(tmp_path, "r-aaaaaa", scheduler="slurm").submitted("12").started()
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Slurmctld(primary) is DOWN'\n")
    with pytest.raises(WaitTimedOut, match="still unknown"):
        waited(run, limit=1)
