"""Why a run waits, in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.made_runs import MadeRun

from orchestrator.diagnose.waiting import REASONS, Request, explain, parse, waiting
from orchestrator.diagnose.why import why
from orchestrator.runs.observe import observe_one
from orchestrator.schedulers.base import JobInfo, JobState

ROW = "2026-11-22T08:00:00|Resources|gpu|4|1-00:00:00|gres/gpu:8|64\n"


def test_squeues_row_is_read_and_nothing_is_nothing() -> None:
    assert parse(ROW) == Request(
        "2026-11-22T08:00:00", "Resources", "gpu", "4", "1-00:00:00", "gres/gpu:8", "64"
    )
    assert parse("N/A|Priority|gpu|1|1:00|(null)|2\n").start == ""
    assert parse("a banner of this site\n") == Request()
    assert parse("") == Request()


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("Resources", "next in the queue"),
        ("Priority", "higher priority"),
        ("(Priority)", "higher priority"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-4]", "down, drained or reserved"),
        ("ReqNodeNotAvail,_UnavailableNodes:n1", "down, drained or reserved"),
        ("launch failed requeued held", "could not start it"),
        ("PartitionTimeLimit", "asks for 1-00:00:00, more than the partition gpu allows"),
        ("QOSMaxGRESPerUser", "as many GPUs"),
    ],
)
def test_a_reason_is_put_in_words(reason: str, part: str) -> None:
    known = explain(reason, parse(ROW), "12")
    assert known is not None
    assert part in known["why"]
    assert "{" not in known["why"] + known["next"]


def test_a_reason_that_nobody_knows_is_shown_as_it_is() -> None:
    assert explain("SolarFlare", Request(), "12") is None


def test_every_reason_has_words_and_a_next_step() -> None:
    import tomllib

    rows = tomllib.loads(REASONS.read_text())
    assert len(rows) >= 40
    for name in rows:
        known = explain(name, Request(), "12")
        assert known is not None
        assert known["why"]
        assert known["next"].endswith(".")


def test_a_run_in_slurms_queue_is_explained_with_its_expected_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue here is a script that prints what a real one prints."""
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f"#!/bin/sh\nprintf '%s' '{ROW}'\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    run = MadeRun(tmp_path, "queued-aaaaaa", scheduler="slurm").submitted("4101")
    observed, _ = observe_one(run.layout, ask=False)
    from orchestrator.runs.state import State

    pending = observed._replace(
        state=observed.state._replace(state=State.PENDING, reason="Waiting in the queue."),
        job=JobInfo("4101", JobState.PENDING, "Resources"),
    )
    told = waiting(pending, why(pending))
    assert told.kind == "waiting"
    assert told.rule == "slurm:Resources"
    assert "4 nodes with gres/gpu:8 for 1-00:00:00 in partition gpu" in told.sentence
    assert "expects it to start at 2026-11-22T08:00:00" in told.sentence


def test_a_run_that_waits_for_gpus_of_this_machine_says_so(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "gpus-aaaaaa").supervised()
    run.event(2, "waiting_for_gpus", wanted=2, free=1)
    observed, _ = observe_one(run.layout, ask=False)
    told = waiting(observed, why(observed))
    assert told.kind == "waiting"
    assert "2 GPUs of this machine" in told.cause
    assert "ptx gpus" in told.next
