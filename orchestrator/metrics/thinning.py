"""Many rows as few points, while they come: means, with the lowest and highest of each stretch.

Memory stays bounded however many rows there are, and no outlier disappears: a stretch of rows
becomes one point with the mean, the minimum and the maximum of what was finite in it, and the
number of values that were not. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

POINTS = 1000
_LARGEST = 1e300
"""Beyond it a mean could overflow; nothing that is measured is as large."""


@dataclass(frozen=True)
class Curve:
    """One quantity, point by point. All columns are equally long."""

    steps: tuple[float | None, ...] = ()
    """Optimizer steps done; None where the time belongs to no step that was kept."""
    times: tuple[float, ...] = ()
    """Epoch seconds."""
    values: tuple[float | None, ...] = ()
    """Means; None, a gap, where nothing that was reported was finite."""
    lows: tuple[float | None, ...] = ()
    highs: tuple[float | None, ...] = ()
    not_finite: tuple[int, ...] = ()
    """NaN and infinite values that the point stands for."""

    def __bool__(self) -> bool:
        return bool(self.times)


@dataclass(slots=True)
class _Cell:
    """One quantity over a stretch."""

    count: int = 0
    mean: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    bad: int = 0

    def take(self, value: float, low: float, high: float) -> None:
        if not -_LARGEST <= low <= high <= _LARGEST:  # NaN compares as False
            self.bad += 1
            return
        self.count += 1
        self.mean += (value - self.mean) / self.count
        if low < self.low:
            self.low = low
        if high > self.high:
            self.high = high

    def absorb(self, other: _Cell) -> None:
        self.bad += other.bad
        if other.count:
            self.count += other.count
            self.mean += (other.mean - self.mean) * other.count / self.count
            self.low = min(self.low, other.low)
            self.high = max(self.high, other.high)


@dataclass(slots=True)
class _Stretch:
    first: float | None
    step: float | None
    t: float
    rows: int = 0
    cells: dict[str, _Cell] = field(default_factory=dict)

    def cell(self, key: str) -> _Cell:
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cells[key] = _Cell()
        return cell

    def absorb(self, later: _Stretch) -> None:
        self.step, self.t, self.rows = later.step, later.t, self.rows + later.rows
        for key, cell in later.cells.items():
            self.cell(key).absorb(cell)


class Thinner:
    """Takes rows in order and keeps at most `2 * points` stretches of them."""

    def __init__(self, points: int = POINTS) -> None:
        self._points = points
        self._width = 1
        self._stretches: list[_Stretch] = []

    @property
    def last_step(self) -> float | None:
        return self._stretches[-1].step if self._stretches else None

    def add(self, step: float | None, t: float, values: Mapping[str, float]) -> None:
        stretch = self._open(step, t)
        for key, value in values.items():
            stretch.cell(key).take(value, value, value)

    def add_spread(
        self, step: float | None, t: float, values: Mapping[str, tuple[float, float, float]]
    ) -> None:
        """A row that stands for several measurements: mean, lowest and highest of each key."""
        stretch = self._open(step, t)
        for key, (value, low, high) in values.items():
            stretch.cell(key).take(value, low, high)

    def undo(self, beyond: float) -> None:
        """Forget the rows of later steps than `beyond`. Of the stretch in which it lies the
        undone part stays in mean and extremes: it is one point of hundreds."""
        while self._stretches and (self._stretches[-1].first or 0) > beyond:
            self._stretches.pop()
        if self._stretches:
            last = self._stretches[-1]
            last.step = min(last.step or 0, beyond)
            last.rows = self._width

    def keys(self) -> set[str]:
        return {key for stretch in self._stretches for key in stretch.cells}

    def points(self) -> list[tuple[float | None, float]]:
        """Step and time of each stretch's last row."""
        return [(stretch.step, stretch.t) for stretch in self._stretches]

    def curve(self, key: str) -> Curve:
        return _curve(
            (stretch, stretch.cells[key]) for stretch in self._stretches if key in stretch.cells
        )

    def _open(self, step: float | None, t: float) -> _Stretch:
        """The stretch to which the next row belongs."""
        if not self._stretches or self._stretches[-1].rows >= self._width:
            self._begin(step, t)
        stretch = self._stretches[-1]
        stretch.step, stretch.t = step, t
        stretch.rows += 1
        return stretch

    def _begin(self, step: float | None, t: float) -> None:
        if len(self._stretches) >= 2 * self._points:
            odd = self._stretches[1::2]
            self._stretches = self._stretches[::2]
            for earlier, later in zip(self._stretches, odd, strict=False):
                earlier.absorb(later)
            self._width *= 2
        self._stretches.append(_Stretch(step, step, t))


def _curve(cells: Iterable[tuple[_Stretch, _Cell]]) -> Curve:
    columns = [
        (
            stretch.step,
            stretch.t,
            *((cell.mean, cell.low, cell.high) if cell.count else (None, None, None)),
            cell.bad,
        )
        for stretch, cell in cells
    ]
    return Curve(*zip(*columns, strict=True)) if columns else Curve()
