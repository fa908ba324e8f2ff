"""The reports of a run as rows: those that stand, whatever was undone, in little memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from support.made_runs import MadeRun

from orchestrator.metrics.table import Table, newest
from orchestrator.metrics.tail import MetricsTail
from orchestrator.runs.layout import RunLayout

Told = tuple[int, int, int]
"""Attempt, step at which it began, step that was reported."""

STARTS = st.lists(st.tuples(st.integers(0, 8), st.lists(st.integers(0, 6), max_size=6)), max_size=6)
"""Of attempts: where each began, and how far each report was from there."""


def written(starts: list[tuple[int, list[int]]]) -> list[Told]:
    return [(n, begin, begin + step) for n, (begin, steps) in enumerate(starts) for step in steps]


def stand(told: list[Told]) -> list[Told]:
    """Each is held against all that follow it."""
    kept = []
    for place, one in enumerate(told):
        later = zip(told[place:], told[place + 1 :], strict=False)
        undone = any(
            after[2] <= one[2] or (after[:2] != before[:2] and after[1] < one[2])
            for before, after in later
        )
        kept += [] if undone else [one]
    return kept


@settings(max_examples=100, deadline=None)
@given(STARTS)
def test_what_a_later_start_or_report_undid_does_not_stand(
    starts: list[tuple[int, list[int]]],
) -> None:
    told = written(starts)
    with TemporaryDirectory() as folder:
        run = MadeRun(Path(folder), "back-aaaaaa")
        for attempt, begin, step in told:
            run.metrics(attempt, step=step, start_step=begin)
        found = [(row["attempt"], row["start_step"], row["step"]) for row in Table(run.layout)]
        assert found == stand(told)
        last = newest(run.layout)
        assert (last and last["step"]) == (told[-1][2] if told else None)


def many(root: Path, count: int) -> RunLayout:
    run = MadeRun(root, "long-aaaaaa").metrics(step=0, note="x" * 900)
    with run.layout.metrics(0).open("a") as file:
        for step in range(1, count):
            file.write(
                json.dumps({"v": 1, "t": 1e9 + step, "step": step, "loss": 2.0, "note": "x" * 900})
                + "\n"
            )
    return run.layout


def test_memory_does_not_grow_with_the_reports(tmp_path: Path) -> None:
    layout = many(tmp_path, 5_000)
    tracemalloc.start()
    try:
        table = Table(layout)
        rows = sum(1 for _ in table)
        lines = sum(1 for _ in table.csv_lines())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (rows, lines) == (5_000, 5_001)
    assert layout.metrics(0).stat().st_size > 4 << 20
    assert peak < 1 << 20


def test_what_is_reported_meanwhile_is_for_the_next_time(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "live-aaaaaa").metrics(step=10).metrics(step=20)
    table = Table(run.layout)
    run.metrics(1, step=5, start_step=0)
    assert [row["step"] for row in table] == [10, 20]
    assert [row["step"] for row in Table(run.layout)] == [5]


def test_the_newest_numbers_are_read_from_the_end(tmp_path: Path) -> None:
    layout = many(tmp_path, 2_000)
    tail = MetricsTail(layout, last=64 << 10)
    assert tail.look().step == 1_999
    assert tail.progress.seconds_per_step == 1.0
    assert 20 < len(tail.progress.losses) < 100  # of the reports that were read
    last = newest(layout)
    assert last is not None and last["step"] == 1_999


def test_a_line_that_is_no_report_hides_none(tmp_path: Path) -> None:
    layout = many(tmp_path, 3)
    with layout.metrics(0).open("a") as file:
        file.write("[" * (1 << 20) + "\n")
    last = newest(layout)
    assert last is not None and last["step"] == 2
