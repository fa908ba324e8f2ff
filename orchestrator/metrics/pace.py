"""Steps and times out of a run's last reports, and each slow rank's share in them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.metrics.lines import Line, number

RATIO = 1.25
"""A slow rank's own seconds a step over the median of all ranks, ..."""
SHARE_OF_STEP = 0.05
"""... and what it needs more than the median, as a share of the whole step."""


@dataclass(frozen=True)
class Slow:
    """One of the slowest ranks of a report: its own seconds a step, and of them those for data."""

    rank: int
    seconds: float
    data: float


@dataclass(frozen=True)
class Period:
    """The steps between two reports."""

    line: Line
    t: float
    """Epoch seconds of the report."""
    steps: int
    seconds: float
    data_wait: float | None
    """Seconds a step that one rank, the longest of all, waited for data."""
    data_read: float | None
    """Seconds in which the median rank reads the data of a step, beside training."""
    slow: tuple[Slow, ...]
    """The slowest first; () where that is not known."""
    median: float | None
    """Of all ranks' own seconds a step."""

    @property
    def step_seconds(self) -> float:
        return self.seconds / self.steps


def periods(lines: Sequence[Line]) -> list[Period]:
    """One a report that follows another of the same start. The first report of a start is left
    out: compilation, caches and the first allocation of memory fall into it."""
    found = []
    for before, line in pairwise(lines):
        same = number(before.record, "start_step") == number(line.record, "start_step")
        step, last = number(line.record, "step"), number(before.record, "step")
        seconds, t = number(line.record, "seconds"), number(line.record, "t")
        if not same or step is None or last is None or t is None or step <= last or not seconds:
            continue
        if seconds > 0:
            found.append(
                Period(
                    line,
                    t,
                    int(step - last),
                    seconds,
                    number(line.record, "data_wait_longest"),
                    number(line.record, "data_read_median"),
                    slow_ranks(line.record),
                    number(line.record, "rank_seconds_median"),
                )
            )
    return found


def slow_ranks(record: dict[str, object]) -> tuple[Slow, ...]:
    """`slow_ranks` of a report; rows that are none are left out."""
    rows = record.get("slow_ranks")
    return tuple(
        Slow(row[0], float(row[1]), float(row[2]))
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, list) and len(row) == 3 and _is_row(row)
    )


def _is_row(row: list[object]) -> bool:
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e300
        for value in row
    )
    return numbers and isinstance(row[0], int)


def marked(slow: Sequence[Slow], usual: float, step_seconds: float) -> set[int]:
    """The ranks that one report shows as slow, `usual` being the median of all."""
    least = max(RATIO * usual, usual + SHARE_OF_STEP * step_seconds)
    return {one.rank for one in slow if one.seconds >= least}
