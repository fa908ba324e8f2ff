"""Looking at a run that moves on at that very moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support.made_runs import MadeRun

from orchestrator.runs import events, observe
from orchestrator.runs.observe import observe_one
from orchestrator.runs.process import Process
from orchestrator.runs.state import State
from orchestrator.schedulers import registry
from orchestrator.schedulers.base import JobInfo, JobState


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path, "demo-aaaaaa")


def test_a_supervisor_that_ends_while_it_is_looked_at_has_not_died(
    run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.supervised().started()
    looks = []

    def ends(process: Process) -> bool:
        if not looks:
            run.ended([0, 0]).event(61, "supervisor_ended", rc=0)
        looks.append(process)
        return False

    monkeypatch.setattr(observe, "alive", ends)
    assert observe_one(run.layout)[0].state.state is State.COMPLETED
    assert looks


def test_a_supervisor_that_is_gone_without_a_word_has_died(
    run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.supervised().started()
    monkeypatch.setattr(observe, "alive", lambda _: False)
    state = observe_one(run.layout)[0].state
    assert (state.state, state.reason) == (State.FAILED, "The supervisor died.")


class EndingJob:
    """A scheduler whose job ends while it is asked about it."""

    def __init__(self, end: Callable[[], object], state: JobState) -> None:
        self._end = end
        self._state = state

    def query(self, jobs: Mapping[str, object]) -> list[JobInfo]:
        self._end()
        return [JobInfo(job, self._state, "") for job in jobs]


@pytest.mark.parametrize(
    ("codes", "job", "state"),
    [([0, 0], JobState.COMPLETED, State.COMPLETED), ([0, 3], JobState.FAILED, State.FAILED)],
)
def test_what_the_nodes_said_before_the_job_was_over_is_heard(
    run: MadeRun,
    monkeypatch: pytest.MonkeyPatch,
    codes: list[int],
    job: JobState,
    state: State,
) -> None:
    run.submitted().started()
    scheduler = EndingJob(lambda: run.ended(codes), job)
    monkeypatch.setattr(registry, "get", lambda _: scheduler)
    seen = observe_one(run.layout)[0].state
    assert (seen.state, seen.failure is None) == (state, not any(codes))


def test_a_job_that_is_over_says_nothing_of_the_one_that_took_its_place(
    run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which its supervisor submits while the scheduler is asked about the first."""
    run.submitted().event(2, "job_started", job_id="12", attempt=0).started().ended([143, 143])
    goes_on = {"class": "time-limit", "retry": True, "where": "new-job"}
    run.event(61, "attempt_ended", attempt=0, **goes_on)
    scheduler = EndingJob(lambda: run.event(62, "submitted", job_id="13"), JobState.TIME_LIMIT)
    monkeypatch.setattr(registry, "get", lambda _: scheduler)
    seen = observe_one(run.layout)[0].state
    assert (seen.job_id, seen.final, seen.state) == ("13", False, State.PENDING)
    assert all(event.type != "job_ended" for event in events.read_events(run.layout))
    # Nor does what was noted of the first by somebody who did not know of the other yet.
    run.event(63, "job_ended", job_id="12", state="time-limit", reason="TIMEOUT", attempt=0)
    assert observe_one(run.layout, ask=False)[0].state.final is False


def test_events_are_those_of_one_moment(run: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.layout.events
    read, written = events.read_regular, []

    def writes_on(path: str, limit: int, offset: int = 0) -> tuple[os.stat_result, bytes]:
        data = read(path, limit, offset)
        if not written:  # between this file, read first, and the other
            written.append(Path(path).name)
            for name, kind in (("a.jsonl", "node_ended"), ("b.jsonl", "supervisor_ended")):
                (folder / name).write_text(f'{{"v": 1, "t": 5, "type": "{kind}"}}\n')
        return data

    for name in ("a.jsonl", "b.jsonl"):
        (folder / name).touch()
    monkeypatch.setattr(events, "read_regular", writes_on)
    kinds = [event.type for event in events.read_events(run.layout)]
    assert written == ["a.jsonl"]
    assert kinds == ["node_ended", "supervisor_ended"]
