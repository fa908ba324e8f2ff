"""Times at which logs are cut into slices of about the same size, and where these begin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate, pairwise

from orchestrator.logs.file import opened
from orchestrator.logs.line import STAMP, TEXT, parse
from orchestrator.logs.position import Position, State
from orchestrator.logs.reader import LogReader
from orchestrator.logs.times import size_before

_NEAR = 4096
"""Bytes that are read through for the first line of a slice, and before it for open pieces."""
_STEP = 256 * 1024
_WINDOW = 32 * 1024
"""Bytes that are searched in memory."""
_LOOK_BACK = 128 * 1024
_SAMPLES = 8
"""In each slice, on average."""
_MOST = 8192
_GOLDEN = 0.618034
"""Its multiples fall evenly between whole numbers."""
_OPEN = (b"Z O ", b"Z E ")


def cuts(readers: Sequence[LogReader], size: int) -> list[str]:
    """Stamps, in order, between which lie about `size` bytes of all logs together.

    Told from samples. Logs have one part. Raises UserError.
    """
    sizes = [reader.size() for reader in readers]
    step = max(size // _SAMPLES, sum(sizes) // _MOST)
    samples = []
    for index, (reader, length) in enumerate(zip(readers, sizes, strict=True)):
        count, shift = -(-length // step), reader.shift
        # At the same places of logs that grow alike would be at few times.
        phase = index * _GOLDEN % 1
        with opened(reader.path) as descriptor:
            for number in range(count if descriptor is not None else 0):
                offset = int((number + phase) * length / count)
                if (found := _line_after(descriptor or 0, offset)[1]) is not None:
                    stamp = found.decode()
                    samples.append((shift(stamp) if shift else stamp, length // count))
    samples.sort()
    totals = list(accumulate((weight for _, weight in samples), initial=0))
    passed = [
        stamp
        for (stamp, _), (before, after) in zip(samples, pairwise(totals), strict=True)
        if before // size != after // size
    ]
    return sorted(set(passed))


def begin_of(reader: LogReader, stamp: str, low: int) -> State:
    """How such a reader should stand at the first line that is shown with `stamp` or later.

    `low`: a line's start before it. A guess, right where the log is in order and no piece of a line
    is open for long. Raises UserError.
    """
    own = reader.shift.back(stamp) if reader.shift else stamp
    with opened(reader.path) as descriptor:
        if descriptor is None:
            return State()
        size = os.fstat(descriptor).st_size
        offset = _first(descriptor, own, low, size)
        if offset == size:
            return State(Position(0, size), stamp)
        before = os.pread(descriptor, min(_NEAR, offset), max(0, offset - _NEAR))
        look = any(mark in before for mark in _OPEN)
        far = max(0, offset - _LOOK_BACK)
        start = far and far + os.pread(descriptor, _NEAR, far).find(b"\n") + 1
    held = _held(reader, start, offset) if look else ()
    return State(Position(0, offset), stamp, held)


def _first(descriptor: int, own: str, low: int, high: int) -> int:
    """Offset of the first line stamped `own` or later, or of the end."""
    stamp, size, step = own.encode(), high, _STEP
    while high - low > _WINDOW:
        middle = min(low + step, (low + high) // 2)
        begin, found = _line_after(descriptor, middle)
        if found is None or begin >= high or found >= stamp:
            high = middle
        else:
            low, step = begin, step * 2
    window = os.pread(descriptor, high - low + _NEAR, low)
    low += size_before(window[: window.rfind(b"\n") + 1], own)
    while data := os.pread(descriptor, 2 * _NEAR, low):
        end = data.find(b"\n") + 1
        begin = 0
        while end:
            if data[begin : begin + STAMP] >= stamp and _stamp(data[begin : begin + TEXT]):
                return low + begin
            begin, end = end, data.find(b"\n", end) + 1
        low += begin or len(data)
    return size


def _line_after(descriptor: int, offset: int) -> tuple[int, bytes | None]:
    """Start and stamp of the first stamped line that begins after `offset`, if it is near."""
    data = os.pread(descriptor, _NEAR, offset)
    begin = data.find(b"\n") + 1
    while begin:
        if found := _stamp(data[begin : begin + TEXT]):
            return offset + begin, found
        begin = data.find(b"\n", begin) + 1
    return offset, None


def _stamp(line: bytes) -> bytes | None:
    found = parse(line.decode("ascii", "replace"))
    return found and found.time.encode()


def _held(of: LogReader, start: int, end: int) -> tuple[tuple[str, str], ...]:
    """Pieces that are open at `end`, as far as can be told from `start` on."""
    reader = of.standing(State(Position(0, start)))
    while reader.offset < end and reader.read(end - reader.offset) is not None:
        pass
    return reader.state.held
