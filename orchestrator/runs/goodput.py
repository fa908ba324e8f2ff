"""How much of a run's time went into steps that were kept. Pure.

The effective training time ratio is the time spent on kept steps over the wall time since the
first attempt began. The wall time runs on while the run waits in a queue, starts up, loads,
evaluates and saves; the time spent on steps is what rank 0 reports as `seconds`. A step is kept
if no later attempt did it again: an attempt that went on from step S undoes what earlier ones did
beyond S. Of what an attempt did after its last report the steps count as far as its agents knew of
them (see last_steps.py), and no time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """What rank 0 says every few steps."""

    step: int
    """Optimizer steps done."""
    start_step: int
    """Of those, the ones that were done when this attempt began."""
    seconds: float
    """Spent on the steps since the report before."""


@dataclass(frozen=True)
class Goodput:
    kept_seconds: float
    wall_seconds: float
    kept_steps: int
    lost_steps: int
    """Done and done again, as often as that happened; those that are on record."""
    more_lost: bool = False
    """There may have been others: an attempt was cut short and went on from before its end."""

    @property
    def ratio(self) -> float | None:
        """The effective training time ratio, from 0 to 1; None before any time has passed."""
        return min(1.0, self.kept_seconds / self.wall_seconds) if self.wall_seconds > 0 else None


def goodput(
    attempts: Sequence[Sequence[Report]], wall_seconds: float, *, more_lost: bool = False
) -> Goodput:
    """`attempts` in order, each with its reports in order."""
    kept_seconds, kept_steps, all_steps = 0.0, 0, 0
    undone_beyond = math.inf
    for reports in reversed(attempts):
        if not reports:
            continue
        before = start = reports[0].start_step
        for report in reports:
            steps = report.step - before
            kept = max(0, int(min(report.step, undone_beyond)) - before)
            if steps > 0:
                kept_seconds += report.seconds * min(1.0, kept / steps)
                kept_steps += min(kept, steps)
                all_steps += steps
            before = report.step
        undone_beyond = min(undone_beyond, start)
    return Goodput(kept_seconds, wall_seconds, kept_steps, all_steps - kept_steps, more_lost)


def reports(records: Sequence[Mapping[str, Any]]) -> list[Report]:
    """From the lines of one attempt's metrics.jsonl. Those that do not say how long they took, as
    an older ptx wrote them, are left out."""
    found = []
    for record in records:
        step, start = record.get("step"), record.get("start_step")
        seconds = record.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            continue
        if isinstance(step, int) and isinstance(start, int):
            found.append(Report(step, start, float(seconds)))
    return found


def with_newest(told: Sequence[Report], newest: Report | None) -> list[Report]:
    """One attempt's reports, and the newest step where it lies beyond them. It may be a second
    older than the last of them."""
    last = told[-1] if told else None
    if newest is None or (
        last is not None and newest.start_step == last.start_step and newest.step <= last.step
    ):
        return list(told)
    return [*told, newest]


def trainings(reports: Sequence[Report]) -> list[list[Report]]:
    """One attempt's reports, apart where the ranks began anew in place of themselves."""
    parts: list[list[Report]] = []
    for report in reports:
        last = parts[-1][-1] if parts else None
        if last is None or report.start_step != last.start_step or report.step <= last.step:
            parts.append([])
        parts[-1].append(report)
    return parts
