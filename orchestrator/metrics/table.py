"""The reports of a run as rows for other tools: those that stand, in the order of their steps."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.metrics.series import reports as every_report
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.words import printable

Record = Mapping[str, Any]


def reports(layout: RunLayout) -> list[dict[str, Any]]:
    """Every report with the number of its attempt, without those that a later attempt, or a start
    in place, has undone. Raises UserError where the run folder cannot be read."""
    kept: list[dict[str, Any]] = []
    begun: tuple[int, int] | None = None
    for report in every_report(layout):
        if (report.attempt, report.start_step) != begun:
            begun = (report.attempt, report.start_step)
            while kept and kept[-1]["step"] > report.start_step:
                kept.pop()
        while kept and kept[-1]["step"] >= report.step:
            kept.pop()
        fields = {key: _finite(value) for key, value in report.record.items() if key != "v"}
        kept.append({"attempt": report.attempt, **fields})
    return kept


def _finite(value: Any) -> Any:
    """As JSON has it: NaN and infinity, which Python's own writer may leave, are null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return value


def csv_lines(records: Sequence[Record]) -> Iterator[str]:
    """A header and a line a report, ended by newlines. Null is empty; lists are left out: of slow
    ranks there are the slowest one and its seconds."""
    columns = list(dict.fromkeys(key for record in records for key in _flat(record)))
    if columns:
        yield _line(columns)
    for record in records:
        flat = _flat(record)
        yield _line([_text(flat.get(column)) for column in columns])


def newest_lines(record: Record) -> list[str]:
    """`key value` lines of one report, without what is null."""
    flat = {key: value for key, value in _flat(record).items() if value is not None}
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
