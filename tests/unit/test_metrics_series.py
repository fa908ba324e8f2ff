"""Reports of all attempts as series by step: what counts, what is kept, what is passed over."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.made_metrics import training
from support.made_runs import CREATED, MadeRun

from orchestrator.metrics.series import read_series
from orchestrator.metrics.table import Table
from orchestrator.metrics.thinning import Thinner


@pytest.fixture
def run(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path, "run-aaaaaa")


def report(run: MadeRun, attempt: int = 0, **fields: Any) -> None:
    run.metrics(attempt, **fields)


def test_an_attempt_undoes_what_earlier_ones_did_beyond_its_start(run: MadeRun) -> None:
    training(run, range(10, 101, 10), loss=lambda step: 1.0)
    training(run, range(70, 131, 10), attempt=1, start_step=60, began=500, loss=lambda step: 2.0)
    training(run, range(40, 81, 10), attempt=2, start_step=30, began=900, loss=lambda step: 3.0)
    series = read_series(run.layout)
    loss = series.curves["loss"]
    assert loss.steps == (10, 20, 30, 40, 50, 60, 70, 80)
    assert loss.values == (1, 1, 1, 3, 3, 3, 3, 3)
    assert [(one.attempt, one.step) for one in series.starts] == [(0, 0), (1, 60), (2, 30)]
    assert series.starts[2].t == CREATED + 900
    assert series.last["loss"] == 3.0


def test_training_that_started_anew_in_place_undoes_too(run: MadeRun) -> None:
    training(run, range(10, 61, 10), loss=lambda step: 1.0)
    training(run, range(10, 31, 10), loss=lambda step: 2.0)
    loss = read_series(run.layout).curves["loss"]
    assert (loss.steps, loss.values) == ((10, 20, 30), (2, 2, 2))


def test_a_curve_holds_only_the_steps_at_which_it_was_reported(run: MadeRun) -> None:
    training(run, range(10, 801, 10))
    series = read_series(run.layout)
    assert series.curves["eval_loss"].steps == (200, 400, 600, 800)
    assert len(series.curves["loss"].steps) == 80
    assert "mfu" not in series.curves


def test_values_that_are_not_finite_are_gaps_and_counted(run: MadeRun) -> None:
    for step, loss in enumerate([1.0, math.nan, math.inf, None, 10**400, 1e305, 2.0], start=1):
        report(run, step=step, loss=loss, grad_norm=None if step == 2 else 1.0, t=step)
    series = read_series(run.layout)
    assert series.curves["loss"].values == (1.0, None, None, None, None, None, 2.0)
    assert series.curves["loss"].not_finite == (0, 1, 1, 1, 1, 1, 0)
    # Null is how a report says that something does not apply, but a loss there always is.
    assert series.curves["grad_norm"].steps == (1, 3, 4, 5, 6, 7)


def test_lines_that_are_no_reports_are_passed_over(run: MadeRun) -> None:
    report(run, step=1, loss=1.0)
    path = run.layout.metrics(0)
    good = path.read_bytes()
    foreign = [
        {"v": 2, "t": 1, "step": 9, "loss": 9},
        {"v": 1, "t": "now", "step": 9, "loss": 9},
        {"v": 1, "t": 1, "step": "nine", "loss": 9},
        {"v": 1, "t": 1, "step": True, "loss": 9},
        {"v": 1, "t": 1, "step": -3, "loss": 9},
        {"v": 1, "t": 1, "step": 10**40, "loss": 9},
        {"v": 1, "t": math.nan, "step": 9, "loss": 9},
        {"v": 1, "t": 10**400, "step": 9, "loss": 9},
        {"v": 1, "t": 1, "step": 9, "start_step": 12, "loss": 9},
        [1, 2],
        "step",
        {"v": 1, "t": 2, "step": 5, "loss": "low", "lr": [1], "mfu": True, "steps": "many"},
    ]
    lines = b"\n".join(json.dumps(one).encode() for one in foreign)
    junk = b"\0" * 100 + b"\xff\n" + b"[" * 100_000 + b"\n" + b'{"v":1,"x":"' + b"y" * (3 << 20)
    path.write_bytes(good + lines + b"\n" + junk + b'"}\n' + good[:-20])
    series = read_series(run.layout)
    assert series.curves["loss"].steps == (1,)
    assert series.curves.keys() == {"loss"}
    assert series.last == {"loss": 1.0}


def test_files_that_cannot_be_read_are_named_and_the_others_are_read(run: MadeRun) -> None:
    report(run, 3, step=1, loss=1.0)
    run.layout.metrics(0).mkdir(parents=True)
    run.layout.attempt(1).mkdir()
    os.mkfifo(run.layout.metrics(1))
    run.layout.attempt(2).mkdir()
    run.layout.metrics(2).symlink_to(run.layout.metrics(2))
    series = read_series(run.layout)
    assert series.curves["loss"].steps == (1,)
    assert [words.split(" ")[0] for words in series.troubles] == [
        str(run.layout.metrics(attempt)) for attempt in range(3)
    ]


def test_a_run_without_reports_is_an_empty_series(run: MadeRun) -> None:
    assert read_series(run.layout).curves == {}


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(values=st.lists(numbers, max_size=400), points=st.integers(2, 12))
def test_thinning_keeps_the_extremes_and_a_bounded_number_of_points(
    values: list[float], points: int
) -> None:
    thinner = Thinner(points)
    for step, value in enumerate(values):
        thinner.add(step, float(step), {"loss": value})
    curve = thinner.curve("loss")
    assert len(curve.steps) <= 2 * points
    finite = [value for value in values if abs(value) <= 1e300]
    assert sum(curve.not_finite) == len(values) - len(finite)
    lows, highs = ([v for v in column if v is not None] for column in (curve.lows, curve.highs))
    assert min(lows, default=None) == min(finite, default=None)
    assert max(highs, default=None) == max(finite, default=None)
    if values:
        assert curve.steps[-1] == len(values) - 1
    for low, mean, high in zip(curve.lows, curve.values, curve.highs, strict=True):
        if low is not None and mean is not None and high is not None:
            slack = 1e-9 * max(abs(low), abs(high))
            assert low - slack <= mean <= high + slack


@given(
    rows=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=80),
    points=st.integers(2, 10),
)
def test_steps_only_rise_whatever_starts_again(
    rows: list[tuple[int, int]], points: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = MadeRun(tmp_path_factory.mktemp("made"), "run-aaaaaa")
    for number, (start, done) in enumerate(rows):
        report(run, number // 10, step=start + done, start_step=start, loss=1.0, t=number)
    curve = read_series(run.layout, points=points).curves.get("loss")
    if rows:
        assert curve is not None
        steps = [step for step in curve.steps if step is not None]
        assert steps == sorted(set(steps))
        assert steps[-1] == sum(rows[-1])


def test_an_attempt_that_does_not_say_where_it_began_undoes_only_what_it_does_again(
    run: MadeRun,
) -> None:
    """As scripts of others write it: only `v`, `t`, `step` and numbers."""
    for attempt, steps in enumerate((range(1, 51), range(51, 101), range(81, 121))):
        for step in steps:
            report(run, attempt, step=step, loss=float(attempt), t=100 * attempt + step)
    series = read_series(run.layout)
    assert series.curves["loss"].steps == tuple(range(1, 121))
    assert series.curves["loss"].values == (0.0,) * 50 + (1.0,) * 30 + (2.0,) * 40
    assert [(one.attempt, one.step) for one in series.starts] == [(0, 0), (1, 50), (2, 80)]
    told = [(row["attempt"], row["step"]) for row in Table(run.layout)]
    assert told == [(0 if step < 51 else 1 if step < 81 else 2, step) for step in range(1, 121)]


def test_training_that_starts_anew_in_place_undoes_without_saying_where(run: MadeRun) -> None:
    for number, step in enumerate((10, 20, 30, 5, 10, 15)):
        report(run, step=step, loss=1.0, t=number)
    assert read_series(run.layout).curves["loss"].steps == (5, 10, 15)
    assert [row["step"] for row in Table(run.layout)] == [5, 10, 15]


@pytest.mark.parametrize(
    ("losses", "since"),
    [
        ([1.0, None, 2.0], {}),
        ([1.0, None, math.nan], {"loss": 2}),
        ([None, None], {"loss": 1}),
        ([1.0, 2.0], {}),
    ],
)
def test_since_when_nothing_finite_was_reported_is_known(
    run: MadeRun, losses: list[float | None], since: dict[str, int]
) -> None:
    for step, loss in enumerate(losses, start=1):
        report(run, step=step, loss=loss, lr=None, t=step)
    assert read_series(run.layout).not_finite == since


def test_a_nan_that_a_restart_undid_is_none(run: MadeRun) -> None:
    training(run, range(1, 11), loss=lambda step: math.nan if step > 5 else 1.0)
    training(run, range(4, 8), attempt=1, start_step=3, loss=lambda step: 1.0)
    assert read_series(run.layout).not_finite == {}
    training(run, range(2, 4), attempt=2, start_step=1, loss=lambda step: math.nan)
    assert read_series(run.layout).not_finite == {"loss": 2}
