"""The share of a run's time that went into steps that were kept."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.runs.events import Event
from orchestrator.runs.goodput import Goodput, Report, goodput, reports, trainings, with_newest
from orchestrator.runs.last_steps import LastSteps, last_steps


def attempt(start: int, end: int, *, every: int = 10, seconds: float = 10.0) -> list[Report]:
    """A report every so many steps, each after so many seconds of steps."""
    return [Report(step, start, seconds) for step in range(start + every, end + 1, every)]


def test_without_a_restart_every_step_is_kept() -> None:
    found = goodput([attempt(0, 100)], 200.0)
    assert found == Goodput(100.0, 200.0, 100, 0)
    assert found.ratio == 0.5


def test_a_step_that_was_done_again_was_lost_the_first_time() -> None:
    found = goodput([attempt(0, 100), attempt(80, 120)], 400.0)
    assert (found.kept_steps, found.lost_steps) == (120, 20)
    assert found.kept_seconds == 80.0 + 40.0
    assert found.ratio == pytest.approx(0.3)


def test_a_stop_that_was_saved_loses_nothing() -> None:
    found = goodput([attempt(0, 50), attempt(50, 100)], 100.0)
    assert (found.kept_steps, found.lost_steps, found.ratio) == (100, 0, 1.0)


def test_a_report_that_was_undone_in_part_counts_in_part() -> None:
    found = goodput([attempt(0, 100), attempt(85, 105)], 1000.0)
    assert found.kept_seconds == 85.0 + 20.0
    assert found.lost_steps == 15


def test_a_step_may_be_lost_several_times() -> None:
    found = goodput([attempt(0, 100), attempt(50, 100), attempt(50, 100)], 1000.0)
    assert (found.kept_steps, found.lost_steps) == (100, 100)


def test_going_back_far_undoes_every_attempt_beyond() -> None:
    found = goodput([attempt(0, 100), attempt(100, 200), attempt(20, 40)], 1000.0)
    assert (found.kept_steps, found.lost_steps) == (40, 180)
    assert found.kept_seconds == 20.0 + 20.0


def test_an_attempt_that_reported_nothing_changes_nothing() -> None:
    assert goodput([attempt(0, 100), [], attempt(80, 90)], 100.0).lost_steps == 20
    assert goodput([[], []], 0.0).ratio is None


def test_training_that_began_anew_in_place_did_some_steps_again() -> None:
    first, second = attempt(0, 30), attempt(10, 40)
    assert trainings([*first, *second]) == [first, second]
    assert trainings(first) == [first]
    assert trainings([]) == []
    told = goodput(trainings([*first, *second]), 100.0)
    assert (told.kept_seconds, told.kept_steps, told.lost_steps) == (40.0, 40, 20)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_a_time_that_is_none_counts_for_nothing(seconds: float) -> None:
    assert reports([{"step": 2, "start_step": 0, "seconds": seconds}]) == []


def test_records_without_their_time_are_left_out() -> None:
    told = [
        {"step": 1},
        {"step": 2, "start_step": 0, "seconds": 1.5},
        {"step": None, "start_step": 0, "seconds": 1},
        {"step": 3, "start_step": 0, "seconds": None},
    ]
    assert reports(told) == [Report(2, 0, 1.5)]


def test_a_step_that_an_agent_knew_of_counts_beyond_the_reports() -> None:
    told = attempt(0, 100)
    crashed = with_newest(told, Report(107, 0, 0.0))
    assert goodput([crashed, attempt(80, 120)], 400.0).lost_steps == 27
    assert with_newest(told, Report(98, 0, 0.0)) == told, "its file is a second behind"
    assert with_newest(told, None) == told
    assert with_newest([], Report(7, 0, 0.0)) == [Report(7, 0, 0.0)]
    anew = with_newest(told, Report(85, 80, 0.0))
    assert trainings(anew) == [told, [Report(85, 80, 0.0)]]


def ended(node: int, **fields: Any) -> Event:
    return Event(2.0, "node_ended", {"attempt": 0, "node": node, **fields})


BEGUN = [Event(1.0, "node_started", {"attempt": 0, "node": node}) for node in range(2)]
ASKED = {"reason": "stopped", "ranks": {"0": 143}, "stepped": True}


def test_the_newest_step_of_an_attempt_is_that_of_any_node() -> None:
    events = [
        *BEGUN,
        ended(0, reason="rank-failed", ranks={"0": 1}, stepped=True, start_step=10, step=40),
        ended(1, reason="rank-failed", ranks={"1": -9}, stepped=True, start_step=10, step=41),
    ]
    assert last_steps(events)[0] == LastSteps(Report(41, 10, 0.0), orderly=False, idle=False)


def test_an_attempt_is_orderly_only_if_every_node_has_said_so() -> None:
    assert last_steps([*BEGUN, ended(0, **ASKED), ended(1, **ASKED)])[0].orderly
    assert not last_steps([*BEGUN, ended(0, **ASKED)])[0].orderly
    killed = ASKED | {"ranks": {"1": -15}}
    assert not last_steps([*BEGUN, ended(0, **ASKED), ended(1, **killed)])[0].orderly


def test_an_attempt_without_a_step_has_lost_none() -> None:
    early = {"reason": "setup-failed", "ranks": {}, "stepped": False}
    assert last_steps([*BEGUN, ended(0, **early), ended(1, **early)])[0].idle
    assert not last_steps([*BEGUN, ended(0, **early)])[0].idle


@pytest.mark.parametrize("wrong", ["7", None, True, -1, 10**30, [7]])
def test_a_step_that_is_none_is_nobodys(wrong: object) -> None:
    told = ended(0, reason="hang", ranks={}, stepped=True, start_step=0, step=wrong)
    assert last_steps([BEGUN[0], told])[0].newest is None
