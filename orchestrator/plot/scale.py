"""From numbers to places on an axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.metrics.thinning import Curve
from orchestrator.plot.panels import Panel
from orchestrator.plot.picture import Drawn
from orchestrator.plot.ticks import log_ticks, ticks, time_ticks

Axis = Literal["step", "time"]


@dataclass(frozen=True)
class Scale:
    low: float
    high: float
    log: bool = False

    def at(self, value: float | None) -> float | None:
        """0 at the low end, 1 at the high one; None for what is not there, or has no logarithm."""
        if value is None or (self.log and value <= 0):
            return None
        if self.log:  # the quotient of two of them may be too large for a number
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(value) - low) / (high - low) if high > low else 0.5
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def of_values(panel: Panel, runs: Sequence[Drawn], *, log: bool) -> Scale:
    """Wide enough for everything that `panel` shows, the extremes of thinned points too. On a log
    scale only where something is above 0."""
    if log and not any(value > 0 for value in values_of(panel, runs)):
        return of_values(panel, runs, log=False)
    shown = [value for run in runs for value in _extremes(_curves(panel, run), log=log)]
    low, high = min(shown, default=1.0 if log else 0.0), max(shown, default=1.0)
    if log:
        return Scale(low / 1.05, high * 1.05, log=True)
    if panel.from_zero:
        low = min(low, 0.0)
    if panel.top is not None:
        return Scale(low, max(high, panel.top))
    margin = (high - low) * 0.04 or abs(high) * 0.05 or 1.0
    return Scale(low if panel.from_zero and low == 0 else low - margin, high + margin)


def of_steps(runs: Sequence[Drawn], axis: Axis) -> Scale:
    """One for all panels of a picture."""
    places = [
        place for run in runs for curve in run.curves.values() for place in along(run, curve, axis)
    ]
    known = [place for place in places if place is not None]
    low = min([0.0, *known])
    return Scale(low, max(known, default=1.0) if known and max(known) > low else low + 1)


def along(run: Drawn, curve: Curve, axis: Axis) -> list[float | None]:
    """Where each point of a curve lies: its step, or seconds since the run began to train."""
    if axis == "step":
        return list(curve.steps)
    return [t - run.began for t in curve.times]


def value_ticks(scale: Scale, count: int, panel: Panel) -> list[float]:
    if scale.log:
        return log_ticks(scale.low, scale.high, count)
    return ticks(scale.low, scale.high, count, panel.kind)


def step_ticks(scale: Scale, count: int, axis: Axis) -> list[float]:
    if axis == "time":
        return time_ticks(scale.high, count)
    whole = [tick for tick in ticks(scale.low, scale.high, count) if tick == int(tick)]
    return whole or [scale.low]


def values_of(panel: Panel, runs: Sequence[Drawn]) -> list[float]:
    """What stands in a panel, a value a point."""
    curves = (curve for run in runs for curve in _curves(panel, run))
    return [value for curve in curves for value in curve.values if value is not None]


def _curves(panel: Panel, run: Drawn) -> list[Curve]:
    if panel.instead_of in run.curves:
        return []
    return [run.curves[key] for key in (panel.key, panel.beside) if key in run.curves]


def _extremes(curves: Iterable[Curve], *, log: bool) -> list[float]:
    return [
        value
        for curve in curves
        for column in (curve.lows, curve.highs)
        for value in column
        if value is not None and (value > 0 or not log)
    ]
