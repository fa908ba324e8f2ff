"""Curves as dots on a canvas. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.metrics.thinning import Curve
from orchestrator.plot.canvas import Canvas, Cell
from orchestrator.plot.glyphs import Glyphs
from orchestrator.plot.picture import Drawn
from orchestrator.plot.scale import Axis, Scale, along

_BETWEEN_MARKS = 24
"""Columns from one letter on a curve to the next."""
_BETWEEN_DOTS = 4

Point = tuple[int, int, int, int]
"""A point's place in dots: column, row, and the rows of its highest and lowest value."""


@dataclass(frozen=True)
class Strokes:
    """Draws on one canvas, between two scales."""

    canvas: Canvas
    steps: Scale
    scale: Scale
    axis: Axis
    glyphs: Glyphs

    def curve(self, run: Drawn, curve: Curve, mark: str, colour: str) -> list[Point]:
        """Means as a line, and every second dot between the extremes. Returns what was drawn."""
        points = self._points(run, curve)
        for point in points:
            if point is not None:
                x, middle, top, bottom = point
                for y in range(top, bottom + 1):
                    if y in (top, middle, bottom) or (x + y) % 2 == 0:
                        self.canvas.dot(x, y, mark, colour)
        stood = _stood(run, curve) if self.axis == "time" else set()
        for number, (before, after) in enumerate(pairwise(points), start=1):
            if before is not None and after is not None and number not in stood:
                self.canvas.line(before[0], before[1], after[0], after[1], mark, colour)
        return [point for point in points if point is not None]

    def dots(self, run: Drawn, curve: Curve, colour: str) -> None:
        """The points alone; of those too close for the curve below to be seen, only some."""
        last = -_BETWEEN_DOTS
        for point in self._points(run, curve):
            if point is not None and self.cell(point)[0] - last >= _BETWEEN_DOTS:
                last = self.cell(point)[0]
                self.canvas.text(*self.cell(point), (self.glyphs.dot, colour))

    def letters(self, points: Sequence[Point], cell: Cell, number: int, of: int) -> None:
        """A run's mark on its curve: each of the runs elsewhere, so that none hides another's."""
        wanted = _BETWEEN_MARKS * (number + 1) // (of + 1)
        for column, row in map(self.cell, points):
            if column >= wanted:
                self.canvas.text(column, row, cell)
                wanted = column - (column - wanted) % _BETWEEN_MARKS + _BETWEEN_MARKS

    def restarts(self, run: Drawn) -> None:
        for start in run.starts[1:]:
            place = self.steps.at(start.step if self.axis == "step" else start.t - run.began)
            for row in range(self.canvas.rows if place is not None else 0):
                self.canvas.text(self._column(place), row, (self.glyphs.restart, "dim"), over=False)

    def bad(self, run: Drawn, curve: Curve) -> None:
        """NaN and infinite values stand on the axis: they have no place above it."""
        for place, bad in zip(along(run, curve, self.axis), curve.not_finite, strict=True):
            if bad and self.steps.at(place) is not None:
                column = self._column(self.steps.at(place))
                self.canvas.text(column, self.canvas.rows - 1, (self.glyphs.bad, "red"))

    def cell(self, point: Point) -> tuple[int, int]:
        """Column and row of the character that holds a point."""
        across, down = (2, 4) if self.canvas.braille else (1, 1)
        return point[0] // across, point[1] // down

    def _column(self, share: float | None) -> int:
        return round((share or 0.0) * (self.canvas.columns - 1))

    def _points(self, run: Drawn, curve: Curve) -> list[Point | None]:
        columns = zip(
            along(run, curve, self.axis), curve.values, curve.lows, curve.highs, strict=True
        )
        return [self._point(*values) for values in columns]

    def _point(
        self, place: float | None, value: float | None, low: float | None, high: float | None
    ) -> Point | None:
        x, y = self.steps.at(place), self.scale.at(value)
        if x is None or y is None:
            return None
        top, bottom = self.scale.at(high), self.scale.at(low)
        column = round(x * (self.canvas.width - 1))
        return (
            column,
            self._row(y),
            self._row(y if top is None else top),
            self._row(y if bottom is None else bottom),
        )

    def _row(self, share: float) -> int:
        return round((1 - min(1.0, max(0.0, share))) * (self.canvas.height - 1))


def _stood(run: Drawn, curve: Curve) -> set[int]:
    """The points before which a new attempt began: until then the run stood still."""
    begins = sorted(start.t for start in run.starts)
    passed = [bisect_right(begins, t) for t in curve.times]
    return {number for number in range(1, len(passed)) if passed[number] > passed[number - 1]}
