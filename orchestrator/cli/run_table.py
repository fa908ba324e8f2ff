"""The table of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.cli.output import duration, table, terminal_columns

LAUNCHER = 3
ROOMY = 100
"""Columns below which the launcher makes room for the reason."""
LEAST_FIRST = (4, 6, 5, 2)
"""Columns that go where a terminal is narrow, in this order: size, loss, step, age."""
HEADER = ("RUN", "STATE", "AGE", "LAUNCHER", "SIZE", "STEP", "LOSS", "REASON")


def run_table(runs: Sequence[Mapping[str, Any]], now: float) -> str:
    """`runs` as `run_summary` makes them. A column in which nothing is known is left out."""
    rows = [_row(run, now) for run in runs]
    told = [column for column in range(len(HEADER)) if any(row[column] != "-" for row in rows)]
    columns = terminal_columns()
    if columns is not None and columns < ROOMY:
        told.remove(LAUNCHER)
    for column in LEAST_FIRST:
        if columns is not None and _least_width(rows, told) > columns and column in told:
            told.remove(column)
    chosen = [[row[column] for column in told] for row in rows]
    return table([HEADER[column] for column in told], chosen, state_column=1)


def _least_width(rows: Sequence[Sequence[str]], told: Sequence[int]) -> int:
    """Columns of a terminal that the table needs; the reason is cut, to ten at the least."""
    widths = [max(len(HEADER[one]), *(len(row[one]) for row in rows)) for one in told[:-1]]
    return sum(widths) + 2 * len(widths) + 10


def _row(run: Mapping[str, Any], now: float) -> tuple[str, ...]:
    metrics = run["metrics"] or {}
    return (
        run["run_id"],
        run["state"],
        duration(now - run["created"]),
        run["launcher"],
        f"{run['nodes']}x{run['procs_per_node']}",
        step(metrics),
        loss(metrics),
        run["reason"],
    )


def step(metrics: Mapping[str, Any]) -> str:
    """`120/300`, or `-` where nothing was measured yet."""
    done, steps = metrics.get("step"), metrics.get("steps")
    if not isinstance(done, int):
        return "-"
    return f"{done}/{steps}" if isinstance(steps, int) else str(done)


def loss(metrics: Mapping[str, Any]) -> str:
    """`nan` where the report has one that is not finite: JSON, which has no NaN, says null."""
    known = metrics.get("loss")
    return "nan" if known is None and "loss" in metrics else number(known)


def number(value: object) -> str:
    """Four significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    return f"{value:.4g}" if math.isfinite(value) else str(value)
