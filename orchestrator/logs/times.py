"""Where in a block of a log a time is."""

from __future__ import annotations

from orchestrator.logs.line import STAMP


def size_before(data: bytes, until: str) -> int:
    """Bytes of the lines before the first one stamped `until` or later, if they are in order."""
    stamp = until.encode()
    last = data.rfind(b"\n", 0, -1) + 1
    if data[last : last + STAMP] < stamp:
        return len(data)
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        begin = max(low, data.rfind(b"\n", low, middle) + 1)
        if data[begin : begin + STAMP] < stamp:
            low = data.find(b"\n", begin) + 1
        else:
            high = begin
    return low
