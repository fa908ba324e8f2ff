"""Times of lines: as bytes that compare, as numbers that do in a third of the time, in a block."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from orchestrator.logs.line import STAMP

TIME = STAMP - 1
"""Of a stamp: all but its Z."""
END = b"\x1f\n"
"""Ends a time; no text that is fit for a terminal holds its first byte."""
KEY = TIME + len(END)

_SHAPE = b"--T::." + END
_MINUTE = len("2026-11-21T00:47:")
_DIGITS = (17, 18, 20, 21, 22, 23, 24, 25)
"""Where the seconds and microseconds stand."""


def key_of(stamp: str) -> bytes:
    return stamp[:TIME].encode() + END


def stamp_of_key(key: bytes) -> str:
    return f"{key[:TIME].decode()}Z"


def minute_of(key: bytes) -> bytes:
    return key[:_MINUTE]


def are_keys(lines: Sequence[bytes]) -> bool:
    """Whether each is a key."""
    together, count = b"".join(lines), len(lines)
    return (
        len(together) == KEY * count
        and together[TIME::KEY] == END[:1] * count
        and together.translate(None, b"0123456789") == _SHAPE * count
    )


def numbers(keys: Sequence[bytes]) -> Sequence[float]:
    """Of keys of one minute, what compares as they do.

    Eight digits, taken as the bytes of a double, compare as digits do.
    """
    together = b"".join(keys)
    size = len(_DIGITS)
    doubles = bytearray(size * len(keys))
    for place, digit in enumerate(_DIGITS):
        at = place if sys.byteorder == "big" else size - 1 - place
        doubles[at::size] = together[digit::KEY]
    return array("d", bytes(doubles)).tolist()


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
