"""Lines of many logs in time order, each with its label instead of its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.logs.columns import Bytes, Columns, Places
from orchestrator.logs.line import TEXT

LONGEST_LABEL = TEXT
"""Bytes: it is written over the time."""
_ROWS = 2048
"""Lines that are laid out as rows of one length, at once: they stay in the processor's cache."""
_WIDEST = 4096
"""Bytes of a row."""
_SPARSE = 4
"""Rows so many times as long as lines are on average cost more than lines one by one."""


class Taken(NamedTuple):
    """Lines `begin` to `end` of a log, and the labels of its two streams."""

    columns: Columns
    begin: int
    end: int
    out: bytes
    err: bytes

    @property
    def first(self) -> int:
        """Where the first line begins among the bytes of the log."""
        return int(self.columns.starts[self.begin])

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.columns.ends[self.end - 1]) - self.first


class Labelled:
    """Keeps its buffers, so that the kernel does not have to clear them each time."""

    def __init__(self) -> None:
        self._read = self._written = np.zeros(0, np.uint8)

    def merged(self, logs: Sequence[Taken]) -> memoryview:
        """All lines of all logs in the order of their times; those of one time in the order of
        logs, and those of one log in its own. Good until the next ones are merged."""
        self._make_room(sum(log.size for log in logs) + _WIDEST)
        begins, ends, at = [], [], 0
        for log in logs:
            own_begins, own_ends, at = self._put(log, at)
            begins.append(own_begins)
            ends.append(own_ends)
        keys = np.concatenate([log.columns.keys[log.begin : log.end] for log in logs])
        order = np.argsort(keys, kind="stable")
        return self._lines(np.concatenate(begins)[order], np.concatenate(ends)[order])

    def _make_room(self, size: int) -> None:
        if len(self._read) < size:
            self._read = self._written = np.zeros(0, np.uint8)
            room = size + size // 4  # rounds differ
            self._read, self._written = np.zeros(room, np.uint8), np.zeros(room, np.uint8)

    def _put(self, log: Taken, at: int) -> tuple[Places, Places, int]:
        """Where its lines begin, with their labels, and end, and where the next log goes."""
        columns, chosen = log.columns, slice(log.begin, log.end)
        first, behind = log.first, at + log.size
        self._read[at:behind] = columns.data[first : first + log.size]
        texts = columns.starts[chosen] + (at - first + TEXT)
        errors = columns.errors[chosen]
        if errors.any():
            begins = texts - np.where(errors, len(log.err), len(log.out))
            self._label(begins[errors], log.err)
            self._label(begins[~errors], log.out)
        else:
            begins = texts - len(log.out)
            self._label(begins, log.out)
        return begins, columns.ends[chosen] + (at - first), behind

    def _label(self, places: Places, label: bytes) -> None:
        windows = _windows(self._read, len(label))
        windows[places] = np.frombuffer(label, windows.dtype)

    def _lines(self, begins: Places, ends: Places) -> memoryview:
        """What stands there, one after the other."""
        lengths = ends - begins
        behind = np.cumsum(lengths)
        places = behind - lengths
        for at in range(0, len(begins), _ROWS):
            some = slice(at, at + _ROWS)
            self._move(begins[some], places[some], lengths[some])
        return self._written[: behind[-1]].data

    def _move(self, begins: Places, places: Places, lengths: Places) -> None:
        """Lines are moved as rows, as long as the longest one: what goes with a line from behind
        it is overwritten by the next one, since numpy assigns in turn."""
        width = int(lengths.max())
        if width <= _WIDEST and width * len(lengths) <= _SPARSE * int(lengths.sum()):
            _windows(self._written, width)[places] = _windows(self._read, width)[begins]
            return
        moves = zip(begins.tolist(), places.tolist(), lengths.tolist(), strict=True)
        for begin, place, length in moves:
            self._written[place : place + length] = self._read[begin : begin + length]


def _windows(buffer: Bytes, width: int) -> npt.NDArray[np.void]:
    """So many bytes from each place on."""
    return np.ndarray((len(buffer) - width + 1,), f"V{width}", buffer, strides=(1,))
