"""Where in a rank's log to begin, found without reading all of it."""

from __future__ import annotations

from pathlib import Path

from orchestrator.logs.discovery import PartName, number_of, parts
from orchestrator.logs.line import MARK, STAMP, parse
from orchestrator.logs.position import START, Position
from orchestrator.logs.stored import Stored

_BLOCK = 64 * 1024
_WHOLE = frozenset(b"oe")
_MARK_OF = STAMP + 1


def offset_since(path: Path, stamp: str) -> Position:
    """A line start at or before the first line stamped `stamp` or later; `path`: the first part.

    Bisects, as lines are in time order. The start of a log that does not exist. Raises UserError.
    """
    for part in reversed(_parts(path)):
        file = Stored(part)
        first = _stamped_line(file, 0, begins=True)
        if number_of(part) == 0 or (first is not None and first[1] < stamp):
            return Position(number_of(part), _since(file, stamp))
    return START


def _since(file: Stored, stamp: str) -> int:
    low, high = 0, file.size() or 0
    # `low` is a line start whose line, if any, is early enough; what is left is scanned.
    while high - low > _BLOCK:
        middle = (low + high) // 2
        found = _stamped_line(file, middle)
        if found is None or found[0] >= high or found[1] >= stamp:
            high = middle
        else:
            low = found[0]
    return low


def offset_of_last(path: Path, count: int) -> Position:
    """After which the last `count` whole lines of the log stand, and little more.

    It lies after a whole line, so that the first of them is not the end of a longer one.
    The start of a log that does not exist or has fewer. Raises UserError.
    """
    wanted = count + 1
    for part in reversed(_parts(path)):
        whole, offset = _last(Stored(part), wanted)
        if whole == wanted:
            return Position(number_of(part), offset)
        wanted -= whole
    return START


def _last(file: Stored, wanted: int) -> tuple[int, int]:
    """How many of `wanted` whole lines this part ends in, and where the earliest of them ends."""
    start = file.size() or 0
    tail, seen = b"", 0
    while start > 0:
        size = min(_BLOCK, start)
        start -= size
        data = (file.pread(size, start) or b"") + tail
        # The first line of a block may have begun before it: it goes with the next block.
        first = 0 if start == 0 else data.find(b"\n") + 1
        if first == 0 and start > 0:
            tail = data
            continue
        whole, after = _whole_from_end(data[first:], wanted - seen)
        seen += whole
        if seen == wanted:
            return seen, start + first + after
        tail = data[:first]
    return seen, 0


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


def _stamped_line(file: Stored, offset: int, *, begins: bool = False) -> tuple[int, str] | None:
    """Start and stamp of the first stamped line that begins after `offset` (or, where one
    `begins` there, at it), within a few blocks."""
    data = file.pread(4 * _BLOCK, offset) or b""
    end = -1 if begins else data.find(b"\n")
    while (begins or end >= 0) and end + 1 < len(data):
        begins = False
        begin = end + 1
        line = parse(data[begin : begin + MARK + 2].decode("ascii", "replace"))
        if line is not None:
            return offset + begin, line.time
        end = data.find(b"\n", begin)
    return None


def _parts(first: Path) -> tuple[Path, ...]:
    name = PartName.of(first.name)
    return parts(first.parent, name.rank) if name else (first,)
