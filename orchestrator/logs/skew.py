"""How far a node's clock was off, told by files that bear both its time and the file server's.

A heartbeat and an event say when they were written by the node's clock; the file's modification
time says the same by the clock of the file server, which is one for all nodes. Both are synced
when written, so the difference is the clock's error and a little delay.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

from orchestrator.logs.line import BEGINNING, stamp_of
from orchestrator.logs.select import RankLog
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.reading import open_file

NOTABLE = 2.0
"""Seconds: synchronised clocks differ by milliseconds, and a delay in writing looks like a
difference; what is less is left alone."""
AGREE = 2.0
"""Two files must tell the same, up to so many seconds: a folder that was copied has other times."""
UTMOST = 86_400.0
_TAIL = 64 * 1024


class Shift:
    """Stamps by a node's clock to stamps by the file server's. `seconds`: how far it was ahead."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._whole, self._micro = divmod(round(-seconds * 1e6), 1_000_000)

    def __call__(self, stamp: str) -> str:
        """A stamp outside of the calendar stays as it is."""
        if stamp <= BEGINNING:
            return stamp
        carry, micro = divmod(int(stamp[20:26]) + self._micro, 1_000_000)
        second = _moved(stamp[:19], self._whole + carry)
        return stamp if second is None else f"{second}.{micro:06d}Z"

    def back(self, stamp: str) -> str:
        """A stamp of the file server's as the node would have written it."""
        return Shift(-self.seconds)(stamp)


class Skews:
    """Each node's error, looked up once."""

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout
        self._known: dict[tuple[int, int], Shift | None] = {}

    def of(self, log: RankLog) -> Shift | None:
        key = log.attempt, log.node
        if key not in self._known:
            self._known[key] = shift_of(self._layout, *key)
        return self._known[key]


def shift_of(layout: RunLayout, attempt: int, node: int) -> Shift | None:
    """None where the node's clock is right, or nothing dependable is known about it."""
    folder = layout.node(attempt, node)
    beat = _heartbeat_error(folder / "heartbeat")
    event = _event_error(layout.events / f"a{attempt:03d}-node-{node:04d}.jsonl")
    if beat is None or event is None or abs(beat - event) > AGREE:
        return None
    # A delay makes the file's time later and so the error smaller than it is.
    error = max(beat, event)
    return Shift(error) if NOTABLE <= abs(error) <= UTMOST else None


def _heartbeat_error(path: Path) -> float | None:
    return _error(path, 64, whole=True)


def _event_error(path: Path) -> float | None:
    return _error(path, _TAIL, whole=False)


def _error(path: Path, size: int, *, whole: bool) -> float | None:
    """Asked again where it was written just now: its line and its time must belong together."""
    return _look(path, size, whole=whole) or _look(path, size, whole=whole)


def _look(path: Path, size: int, *, whole: bool) -> float | None:
    """Seconds by which the `t` of the last line is ahead of the file's modification time."""
    try:
        with open_file(path) as file:
            found = os.fstat(file.fileno())
            file.seek(max(0, found.st_size - size))
            data = file.read(size)
            if os.fstat(file.fileno()).st_mtime_ns != found.st_mtime_ns:
                return None
    except OSError:
        return None
    lines = [data] if whole else data.split(b"\n")[-2:-1]
    try:
        t = json.loads(lines[0])["t"]
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return t - found.st_mtime if isinstance(t, (int, float)) and abs(t) < 1e11 else None


@lru_cache(maxsize=4096)
def _moved(second: str, by: int) -> str | None:
    from datetime import datetime, timedelta

    try:
        then = datetime.fromisoformat(f"{second}+00:00") + timedelta(seconds=by)
        return stamp_of(then.timestamp())[:19]
    except (ValueError, OverflowError, OSError):
        return None
