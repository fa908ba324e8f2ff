"""The share of a run's time that went into steps that were kept."""

from __future__ import annotations

import math

import pytest

from orchestrator.runs.goodput import Goodput, Report, goodput, reports, trainings


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
