"""Looking at a run that moves on at that very moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from support.made_runs import MadeRun
from support.made_samples import leave_heartbeat

from orchestrator.errors import Conflict
from orchestrator.preparation import Choices
from orchestrator.resumption import prepare_resumption
from orchestrator.runs import events, observe, server_time
from orchestrator.runs.observe import observe_one
from orchestrator.runs.process import Process, this_process
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


AHEAD = [-600, 600]
"""Seconds by which the clock of whoever looks is wrong."""


@pytest.fixture
def skew(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    monkeypatch.setattr(server_time, "_seen", {})
    right = time.time
    return lambda by: monkeypatch.setattr(time, "time", lambda: right() + by)


def away(root: Path, run_id: str = "away-aaaaaa", *, silent: float) -> MadeRun:
    """A run on another machine, of which nobody here can see whether it lives."""
    run = MadeRun(root, run_id).submitted()
    elsewhere = vars(this_process()) | {"host": "elsewhere", "boot_id": "other"}
    run.event(1, "supervisor_started", **elsewhere).started()
    leave_heartbeat(run.layout, time.time() - silent)
    return run


@pytest.mark.parametrize("ahead", AHEAD)
@pytest.mark.parametrize(("silent", "state"), [(10, State.RUNNING), (400, State.UNKNOWN)])
def test_a_wrong_clock_here_takes_no_run_elsewhere_for_another_than_it_is(
    tmp_path: Path, skew: Callable[[float], None], ahead: float, silent: float, state: State
) -> None:
    run = away(tmp_path, silent=silent)
    left = sorted(run.layout.root.rglob("*"))
    skew(ahead)
    seen = observe_one(run.layout)[0].state
    assert seen.state is state
    assert (f"silent for {silent // 10}" in seen.reason) is (state is State.UNKNOWN)
    assert sorted(run.layout.root.rglob("*")) == left


def test_where_the_clock_is_ahead_no_run_is_resumed_beside_itself(
    tmp_path: Path, skew: Callable[[float], None]
) -> None:
    run = away(tmp_path, silent=10)
    skew(600)
    with pytest.raises(Conflict, match="it is running"):
        prepare_resumption(run.layout, Choices())


def test_a_run_in_which_nothing_can_be_written_is_judged_by_the_clock_here(
    tmp_path: Path, skew: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = away(tmp_path, silent=10)

    def refuse(_: str) -> float:
        raise PermissionError

    monkeypatch.setattr(server_time, "_touched", refuse)
    assert observe_one(run.layout)[0].state.state is State.RUNNING
    skew(600)
    assert observe_one(run.layout)[0].state.state is State.UNKNOWN


def test_the_time_of_the_file_server_is_asked_once_for_all_runs_and_only_of_silent_ones(
    tmp_path: Path, skew: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, touched = [], server_time._touched
    monkeypatch.setattr(server_time, "_touched", lambda one: asked.append(one) or touched(one))
    skew(0)
    for number in range(5):
        observe_one(away(tmp_path, f"live-aaaaa{number}", silent=10).layout)
    assert not asked
    for number in range(5):
        observe_one(away(tmp_path, f"dead-aaaaa{number}", silent=400).layout)
    assert len(asked) == 1
