"""Curves as JSON: in full for other tools, compact for the page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from orchestrator.metrics.thinning import Curve
from orchestrator.plot.picture import Drawn
from orchestrator.runs.words import printable

_MOST_STARTS = 200


def run_fields(run: Drawn, only: Sequence[str] = ()) -> dict[str, Any]:
    """For `ptx plot --json`: `series` has equally long columns; low and high are the extremes of
    what a point stands for, and a value is null where nothing finite was reported."""
    return {
        "run_id": run.run_id,
        "name": run.name,
        "state": run.state,
        "steps": run.steps,
        "attempts": [
            {"attempt": one.attempt, "start_step": one.step, "t": one.t} for one in run.starts
        ],
        "series": [
            {
                "name": key,
                "last": run.last.get(key),
                "step": list(curve.steps),
                "t": list(curve.times),
                "value": list(curve.values),
                "low": list(curve.lows),
                "high": list(curve.highs),
                "not_finite": list(curve.not_finite),
            }
            for key, curve in run.curves.items()
            if not only or key in only
        ],
    }


def compact(run: Drawn) -> dict[str, Any]:
    """For the page: numbers of six digits, times from the run's begin, and the columns of steps
    and times that several curves share only once."""
    axes: list[tuple[Sequence[float | None], Sequence[float]]] = []
    curves = {key: _curve(curve, axes) for key, curve in run.curves.items()}
    return {
        "id": printable(run.run_id),
        "mark": run.mark,
        "state": run.state,
        "step": run.last_step,
        "steps": run.steps,
        "seconds": round(run.seconds, 1),
        "restarts": max(0, len(run.starts) - 1),
        "last": {key: _digits(value) for key, value in run.last.items()},
        "not_finite": dict(run.not_finite),
        "starts": _starts(run),
        "axes": [
            [
                [None if step is None else round(step, 1) for step in steps],
                [round(t - run.began, 1) for t in times],
            ]
            for steps, times in axes
        ],
        "curves": curves,
    }


def _curve(
    curve: Curve, axes: list[tuple[Sequence[float | None], Sequence[float]]]
) -> dict[str, Any]:
    axis = (curve.steps, curve.times)
    if axis not in axes:
        axes.append(axis)
    found: dict[str, Any] = {
        "axis": axes.index(axis),
        "v": [_digits(value) for value in curve.values],
        "bad": [[index, count] for index, count in enumerate(curve.not_finite) if count],
    }
    if curve.lows != curve.values or curve.highs != curve.values:
        found["l"] = [_digits(value) for value in curve.lows]
        found["h"] = [_digits(value) for value in curve.highs]
    return found


def _starts(run: Drawn) -> list[dict[str, Any]]:
    first, rest = run.starts[:1], run.starts[1:]
    found = [{"attempt": one.attempt, "step": one.step, "t": 0.0, "words": ""} for one in first]
    for before, start in list(pairwise([*first, *rest]))[-_MOST_STARTS:]:
        after = run.ends.get(before.attempt)
        words = f"attempt {start.attempt} from step {start.step:.0f}"
        found.append(
            {
                "attempt": start.attempt,
                "step": start.step,
                "t": round(start.t - run.began, 1),
                "words": printable(f"{words}, after {after}") if after else words,
            }
        )
    return found


def _digits(value: float | None) -> float | None:
    if value is None:
        return None
    short = float(f"{value:.6g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short
