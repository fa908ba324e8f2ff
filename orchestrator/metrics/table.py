"""The reports of a run as rows for other tools: those that stand, in the order of their steps."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any

from orchestrator.errors import NotFound
from orchestrator.logs.discovery import attempts
from orchestrator.metrics.lines import last_lines
from orchestrator.metrics.series import Report, report_of
from orchestrator.metrics.series import reports as every_report
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.words import printable

Record = Mapping[str, Any]
_TAILS = (64 << 10, 4 << 20)
"""Bytes at the end of a file: a report is about 1 KiB, what is longer than 1 MiB is none."""


class Table:
    """The reports that stand: without those that a later attempt, or a start in place, has undone.

    The files are read once for what stands, and once more for each time the reports are asked for:
    a report is in memory only while it is looked at.
    """

    def __init__(self, layout: RunLayout) -> None:
        """Raises UserError where the run folder cannot be read."""
        self._layout = layout
        self._count = 0
        self._undone: list[tuple[int, int]] = []
        """How many reports were there when all beyond a step were undone, and that step."""
        keys: dict[str, None] = {}
        begun, highest = None, -1
        for report in every_report(layout):
            start = (report.attempt, report.start_step)
            least = report.step - 1 if start == begun else min(report.step - 1, report.start_step)
            if least < highest:
                self._undone.append((self._count, least))
            begun, highest = start, report.step
            self._count += 1
            keys |= dict.fromkeys(_flat(_fields(report)))
        self._columns = tuple(keys)

    def __bool__(self) -> bool:
        return self._count > 0

    def __iter__(self) -> Iterator[Record]:
        """In the order of their steps, each with the number of its attempt. Raises NotFound where
        some of them went away."""
        limits = _limits(self._undone)
        ahead, number = next(limits), -1
        # What was reported since the first look may undo what was given out already.
        for number, report in enumerate(islice(every_report(self._layout), self._count)):
            while number >= ahead[0]:
                ahead = next(limits)
            if report.step <= ahead[1]:
                yield _fields(report)
        if number + 1 < self._count:
            raise NotFound(f"Reports of {self._layout.run_id} went away while they were read.")

    def csv_lines(self) -> Iterator[str]:
        """A header and a line a report, ended by newlines. Null is empty; lists are left out: of
        slow ranks there are the slowest one and its seconds."""
        if self:
            yield _line(self._columns)
        for record in self:
            flat = _flat(record)
            yield _line([_text(flat.get(column)) for column in self._columns])


def _limits(undone: Sequence[tuple[int, int]]) -> Iterator[tuple[float, float]]:
    """Up to which report (exclusive) which highest step stands."""
    steps = [step for _, step in undone]
    least = list(accumulate(reversed(steps), min))[::-1]
    yield from zip((count for count, _ in undone), least, strict=True)
    yield math.inf, math.inf


def newest(layout: RunLayout) -> Record | None:
    """The last report, from the end of its file. Raises UserError as `Table` does."""
    for attempt in reversed(attempts(layout)):
        for size in _TAILS:
            for line in reversed(last_lines(layout.metrics(attempt), size, counted=0)):
                report = report_of(attempt, line.record)
                if report is not None:
                    return _fields(report)
    return None


def _fields(report: Report) -> Record:
    fields = {key: _finite(value) for key, value in report.record.items() if key != "v"}
    return {"attempt": report.attempt, **fields}


def _finite(value: Any) -> Any:
    """As JSON has it: NaN and infinity, which Python's own writer may leave, are null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return value


def newest_lines(record: Record) -> list[str]:
    """`key value` lines of one report, without what is null; as a loss that is a NaN."""
    flat = _flat(record)
    if "loss" in flat and flat["loss"] is None:
        flat["loss"] = "not finite"
    flat = {key: value for key, value in flat.items() if value is not None}
    flat = {printable(key): value for key, value in flat.items()}
    width = max(map(len, flat), default=0)
    return [f"{key.ljust(width)}  {printable(_text(value))}" for key, value in flat.items()]


def _flat(record: Record) -> dict[str, Any]:
    flat = {
        key: value
        for key, value in record.items()
        if value is None or isinstance(value, str | int | float)
    }
    slow = record.get("slow_ranks")
    if isinstance(slow, list) and slow and isinstance(slow[0], list) and len(slow[0]) > 1:
        flat["slowest_rank"], flat["slowest_rank_seconds"] = slow[0][:2]
    flat.pop("slow_ranks", None)
    return flat


def _text(value: object) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def _line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
