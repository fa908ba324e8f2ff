"""What rank 0 reported over all attempts of a run, as series by step.

An attempt that began at a step undoes what earlier ones had done beyond it, as one that started
anew in place does (`orchestrator/training/memory`): the steps of a series only rise.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.logs.discovery import attempts
from orchestrator.metrics.thinning import POINTS, Curve, Thinner
from orchestrator.runs.layout import RunLayout

VERSION = 1
KEYS = (
    "loss",
    "eval_loss",
    "tokens_per_s",
    "samples_per_s",
    "memory_bytes",
    "lr",
    "grad_norm",
    "data_share",
    "mfu",
    "eval_accuracy",
)
"""Of metrics.jsonl, what can be drawn."""
_NEVER_NULL = frozenset({"loss"})
"""JSON has no NaN, so the writer says null; the others are null where they do not apply."""
_LONGEST_LINE = 1 << 20
_LARGEST_STEP = 1 << 53
LATEST = 1e11
"""Epoch seconds: a time beyond the year 5000 is none."""


@dataclass(frozen=True)
class Start:
    """Where an attempt began to train."""

    attempt: int
    step: float
    """Steps that were done."""
    t: float
    """Epoch seconds, as far as its first report tells."""


@dataclass(frozen=True)
class Series:
    """One run. Empty where nothing was reported."""

    curves: Mapping[str, Curve] = field(default_factory=dict)
    """By key of metrics.jsonl; those that were never reported are not there."""
    starts: tuple[Start, ...] = ()
    """Of the attempts that reported something, also where all of it was undone."""
    clock: tuple[tuple[float | None, float], ...] = ()
    """Step and epoch seconds of each point that was kept."""
    last: Mapping[str, float] = field(default_factory=dict)
    """The newest finite value of each key, as it was reported."""
    not_finite: Mapping[str, int] = field(default_factory=dict)
    """Key -> the step since which nothing finite was reported; only keys of which that is so."""
    steps: int | None = None
    """How many the training is to make."""
    troubles: tuple[str, ...] = ()
    """One sentence for each file that could not be read."""


@dataclass(frozen=True)
class Report:
    """One line of metrics.jsonl."""

    attempt: int
    step: int
    start_step: int
    """Steps that were done when its attempt began, where it does not say so as good as known."""
    t: float
    record: Mapping[str, Any]


def read_series(layout: RunLayout, *, points: int = POINTS) -> Series:
    """At most twice `points` points a curve, and memory for no more than that.

    Torn, foreign and oversized lines are left out. Raises UserError where the folder of the
    attempts cannot be read.
    """
    thinner, starts, last = Thinner(points), list[Start](), dict[str, float]()
    steps, not_finite = None, dict[str, int]()
    begun, troubles = -1, list[str]()
    for report in reports(layout, troubles):
        if not starts or (report.attempt, report.start_step) != (starts[-1].attempt, begun):
            begun = report.start_step
            thinner.undo(begun)
            starts.append(_start(report))
        if report.step <= (thinner.last_step or 0):
            thinner.undo(report.step - 1)  # reported again: the newer one counts
        values = _values(report.record)
        thinner.add(report.step, report.t, values)
        last |= {key: value for key, value in values.items() if math.isfinite(value)}
        not_finite = _not_finite(not_finite, report.step, values)
        steps = _whole(report.record.get("steps")) or steps
    known = thinner.keys()
    return Series(
        curves={key: thinner.curve(key) for key in KEYS if key in known},
        starts=tuple(_one_an_attempt(starts)),
        clock=tuple(thinner.points()),
        last=last,
        not_finite=not_finite,
        steps=steps,
        troubles=tuple(troubles),
    )


def reports(layout: RunLayout, troubles: list[str] | None = None) -> Iterator[Report]:
    """Every report of every attempt, in the order in which they were written, undone ones too.

    Files that cannot be read are named in `troubles`.
    """
    for attempt in attempts(layout):
        path = layout.metrics(attempt)
        try:
            file = _opened(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if troubles is not None:
                troubles.append(f"{path} cannot be read: {error.strerror}.")
            continue
        with file:
            yield from _of_attempt(attempt, file)


def foreign_lines(layout: RunLayout) -> tuple[int, int] | None:
    """The newest attempt that left lines in its metrics.jsonl, and how many; None where there are
    none, or where any attempt's are reports. Raises UserError as `read_series` does."""
    if next(reports(layout), None) is not None:
        return None
    for attempt in reversed(attempts(layout)):
        try:
            file = _opened(layout.metrics(attempt))
        except OSError:
            continue
        with file:
            count = sum(1 for line in _lines(file) if line.strip())
        if count:
            return attempt, count
    return None


def _opened(path: Path) -> BinaryIO:
    """Raises OSError, for a pipe too, which would be waited for for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file")
    return open(descriptor, "rb")  # noqa: PTH123 - a descriptor; the caller closes it


def _not_finite(since: Mapping[str, int], step: int, values: Mapping[str, float]) -> dict[str, int]:
    """`since` after one more report. Of a step that was done again the newer report counts."""
    found = {key: min(first, step) for key, first in since.items()}
    for key, value in values.items():
        if math.isfinite(value):
            found.pop(key, None)
        else:
            found.setdefault(key, step)
    return found


def report_of(attempt: int, record: object, begun: int | None = None) -> Report | None:
    """None for what is no report of this version. `begun` is where the attempt began, as the
    report before it has it."""
    if not isinstance(record, dict) or record.get("v") != VERSION:
        return None
    step, t = _whole(record.get("step")), record.get("t")
    if step is None or isinstance(t, bool) or not isinstance(t, int | float):
        return None
    start = _whole(record.get("start_step"))
    if start is None:
        # Others do not say where an attempt began. From 0 it would undo all that was done before;
        # steps that it does again are undone as they are reported.
        start = min(max(0, step - 1), step if begun is None else begun)
    known = 0 <= t < LATEST and start <= step
    return Report(attempt, step, start, float(t), record) if known else None


def _of_attempt(attempt: int, file: BinaryIO) -> Iterator[Report]:
    begun: int | None = None
    for line in _lines(file):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        report = report_of(attempt, record, begun)
        if report is not None:
            begun = report.start_step
            yield report


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines; one that is longer than any report is passed over."""
    oversized = False
    while line := file.readline(_LONGEST_LINE):
        whole = line.endswith(b"\n")
        if whole and not oversized:
            yield line
        oversized = not whole


def _values(record: Mapping[str, Any]) -> dict[str, float]:
    """NaN for what is not finite."""
    found = {}
    for key in KEYS:
        value = record.get(key)
        if value is None:
            if key in _NEVER_NULL and key in record:
                found[key] = math.nan
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[key] = _float(value)
    return found


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON's integers have no end
        return math.inf


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < _LARGEST_STEP else None


def _start(report: Report) -> Start:
    """The first report says how long its steps took."""
    seconds = report.record.get("seconds")
    known = isinstance(seconds, int | float) and 0 <= seconds < LATEST
    before = float(seconds) if known and seconds else 0.0
    return Start(report.attempt, report.start_step, max(0.0, report.t - before))


def _one_an_attempt(starts: list[Start]) -> list[Start]:
    """An attempt that started anew in place is the attempt that it was."""
    first: dict[int, Start] = {}
    for start in starts:
        first.setdefault(start.attempt, start)
    return list(first.values())
