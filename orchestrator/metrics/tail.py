"""metrics.jsonl of a live run: what rank 0 last reported, and the way there."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orchestrator.logs.discovery import attempts
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.reading import open_regular

VERSION = 1
_LARGEST = 1e100
"""What is computed from several of them stays finite."""
_LOSSES = 4096
_LONGEST_LINE = 1 << 20
"""What is longer is no report, and passed over."""
_RECENT = 20


@dataclass(frozen=True)
class Progress:
    """Where training stands. None where the entrypoint does not report it."""

    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    """NaN where the last report has one, and says so with a null as well."""
    losses: tuple[float, ...] = ()
    """From the first report to the last, thinned out evenly."""
    tokens_per_s: float | None = None
    seconds_per_step: float | None = None
    """Of the last twenty reports."""
    reported: float | None = None
    """When, in epoch seconds."""

    def eta(self, now: float) -> float | None:
        """Seconds until the last step, None where that cannot be known."""
        if self.step is None or self.steps is None or self.seconds_per_step is None:
            return None
        since = max(0.0, now - self.reported) if self.reported is not None else 0.0
        return max(0.0, (self.steps - self.step) * self.seconds_per_step - since)


@dataclass
class MetricsTail:
    """Reads what was added to the newest attempt's metrics.jsonl since the last look."""

    layout: RunLayout
    last: int | None = None
    """Bytes at the end of a file that are enough; None for all of it. Losses are then those that
    stand there."""
    progress: Progress = field(default_factory=Progress)
    record: dict[str, Any] = field(default_factory=dict)
    """The last report as it stands there; {} before the first one of the newest attempt."""
    _attempt: int | None = None
    _offset: int = 0
    _losses: list[float] = field(default_factory=list)
    _stride: int = 1
    _seen: int = 0
    _recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _speeds: tuple[float, int] = (0.0, 0)
    """Sum and number of the reported tokens/s."""

    @property
    def mean_tokens_per_s(self) -> float | None:
        total, count = self._speeds
        return total / count if count else None

    def look(self) -> Progress:
        """The newest state. A torn or foreign line is left out; a missing file is no error."""
        newest = max(attempts(self.layout), default=None)
        if newest != self._attempt:
            self._start(newest)
        if self._attempt is None:
            return self.progress
        while taken := self._lines(self._added()):
            self._offset += taken
        return self.progress

    def _lines(self, data: bytes) -> int:
        """Take whole lines in; how many bytes they are."""
        for line in data.split(b"\n")[:-1]:
            record = _parse(line)
            if record is not None:
                self._take(record)
        whole = data.rfind(b"\n") + 1
        return len(data) if not whole and len(data) >= _LONGEST_LINE else whole

    def _start(self, attempt: int | None) -> None:
        """A new attempt: its steps may begin anew; the losses so far remain in the picture."""
        self._attempt, self._offset = attempt, 0
        if self.last is not None and attempt is not None:
            with suppress(OSError):
                size = os.stat(self.layout.metrics(attempt)).st_size  # noqa: PTH116
                self._offset = max(0, size - self.last)  # half a line is no report
        self._recent.clear()
        self.record = {}

    def _added(self) -> bytes:
        try:
            descriptor, _ = open_regular(self.layout.metrics(self._attempt or 0))
        except OSError:
            return b""
        try:
            return os.pread(descriptor, _LONGEST_LINE, self._offset)
        finally:
            os.close(descriptor)

    def _take(self, record: dict[str, Any]) -> None:
        self.record = record
        step, t, loss = (_number(record, key) for key in ("step", "t", "loss"))
        diverged = loss is None and "loss" in record and _is_number_or_null(record["loss"])
        if step is not None and t is not None:
            self._recent.append((t, step))
        if loss is not None:
            self._remember(loss)
        steps, speed = _number(record, "steps"), _number(record, "tokens_per_s")
        if speed is not None:
            self._speeds = (self._speeds[0] + speed, self._speeds[1] + 1)
        self.progress = Progress(
            step=None if step is None else int(step),
            steps=None if not steps else int(steps),
            loss=math.nan if diverged else loss,
            losses=tuple(self._losses),
            tokens_per_s=speed,
            seconds_per_step=self._pace(),
            reported=t,
        )

    def _remember(self, loss: float) -> None:
        if self._seen % self._stride == 0:
            self._losses.append(loss)
            if len(self._losses) > _LOSSES:
                self._losses = self._losses[::2]
                self._stride *= 2
        self._seen += 1

    def _pace(self) -> float | None:
        if len(self._recent) < 2:
            return None
        (t0, step0), (t1, step1) = self._recent[0], self._recent[-1]
        return (t1 - t0) / (step1 - step0) if step1 > step0 and t1 > t0 else None


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and record.get("v") == VERSION else None


def _is_number_or_null(value: object) -> bool:
    """Of a loss that is no finite number: NaN, infinity, or the null that JSON has for them."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _number(record: dict[str, Any], key: str) -> float | None:
    """NaN, which a diverged loss is, shows nothing that could be drawn."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        return None
    return float(value)
