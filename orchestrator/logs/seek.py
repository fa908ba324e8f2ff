"""Where in a rank log to begin, found without reading all of it."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.logs.file import opened
from orchestrator.logs.line import MARK, STAMP, parse

_BLOCK = 64 * 1024
_WHOLE = frozenset(b"oe")
_MARK_OF = STAMP + 1


def offset_since(path: Path, stamp: str) -> int:
    """Offset of a line start at or before the first line stamped `stamp` or later.

    Bisects, as lines are in time order. 0 for a file that does not exist. Raises UserError.
    """
    with opened(path) as descriptor:
        if descriptor is None:
            return 0
        low, high = 0, os.fstat(descriptor).st_size
        # `low` is a line start whose line, if any, is early enough; what is left is scanned.
        while high - low > _BLOCK:
            middle = (low + high) // 2
            found = _stamped_line(descriptor, middle)
            if found is None or found[0] >= high or found[1] >= stamp:
                high = middle
            else:
                low = found[0]
        return low


def offset_of_last(path: Path, count: int) -> int:
    """Offset after which the last `count` whole lines of the file stand, and little more.

    It lies after a whole line, so that the first of them is not the end of a longer one.
    0 for a file that does not exist or has fewer. Raises UserError.
    """
    with opened(path) as descriptor:
        if descriptor is None:
            return 0
        start = os.fstat(descriptor).st_size
        wanted, tail = count + 1, b""
        while start > 0:
            size = min(_BLOCK, start)
            start -= size
            data = os.pread(descriptor, size, start) + tail
            # The first line of a block may have begun before it: it goes with the next block.
            first = 0 if start == 0 else data.find(b"\n") + 1
            if first == 0 and start > 0:
                tail = data
                continue
            whole, after = _whole_from_end(data[first:], wanted)
            if whole == wanted:
                return start + first + after
            wanted -= whole
            tail = data[:first]
        return 0


def _whole_from_end(data: bytes, wanted: int) -> tuple[int, int]:
    """How many of `wanted` whole lines `data` ends in, and where the earliest of them ends."""
    end, whole, after = data.rfind(b"\n"), 0, len(data)
    while end >= 0:
        begin = data.rfind(b"\n", 0, end) + 1
        if end - begin <= _MARK_OF or data[begin + _MARK_OF] in _WHOLE:
            whole, after = whole + 1, end + 1
            if whole == wanted:
                break
        end = begin - 1
    return whole, after


def _stamped_line(descriptor: int, offset: int) -> tuple[int, str] | None:
    """Start and stamp of the first stamped line that begins after `offset`, within a few blocks."""
    data = os.pread(descriptor, 4 * _BLOCK, offset)
    end = data.find(b"\n")
    while end >= 0 and end + 1 < len(data):
        begin = end + 1
        line = parse(data[begin : begin + MARK + 2].decode("ascii", "replace"))
        if line is not None:
            return offset + begin, line.time
        end = data.find(b"\n", begin)
    return None
