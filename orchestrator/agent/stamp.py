"""Stamp blocks of output with time and stream, never line by line.

A stamped line is `2026-11-21T00:47:11.123456Z o text`. A capital stream letter says that the
newline after the text is the stamper's: the next line of the same stream continues it.
Removing the stamps (`strip`) gives every byte of each stream back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BLOCK = 1 << 17
"""Bytes read at once, and the most that is held back waiting for a newline."""
STAMP_SIZE = len("2026-11-21T00:47:11.123456Z")
PREFIX_SIZE = STAMP_SIZE + len(" o ")

Parts = list["bytes | memoryview"]


class Clock:
    """UTC stamps that never go backwards, whatever is done to the machine's clock."""

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self._last = 0
        self._second = -1
        self._text = ""

    def stamp(self) -> bytes:
        self._last = max(self._last, self._now() // 1000)
        second, microsecond = divmod(self._last, 1_000_000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{microsecond:06d}Z".encode()


class Stamper:
    """One stream: bytes in, stamped lines out; the text after the last newline is held back."""

    def __init__(self, tag: bytes, limit: int = BLOCK) -> None:
        self._whole = b" " + tag + b" "
        self._cut = b" " + tag.upper() + b" "
        self._limit = limit
        self.pending = b""

    def feed(self, data: bytes, stamp: bytes) -> Parts:
        """The lines that `data` completes, ready to be written; empty where it completes none."""
        end = data.rfind(b"\n") + 1
        if not end:
            self.pending += data
            return self.flush(stamp) if len(self.pending) >= self._limit else []
        prefix = stamp + self._whole
        stamped = data[:end].replace(b"\n", b"\n" + prefix)
        head = prefix + self.pending
        self.pending = data[end:]
        return [head, memoryview(stamped)[: -len(prefix)]]

    def flush(self, stamp: bytes) -> Parts:
        """What is held back, as a line marked as cut."""
        if not self.pending:
            return []
        line = stamp + self._cut + self.pending + b"\n"
        self.pending = b""
        return [line]


def strip(log: bytes, tag: bytes) -> bytes:
    """The bytes of one stream as they were before stamping."""
    return b"".join(
        line[PREFIX_SIZE:]
        if line[STAMP_SIZE + 1 : STAMP_SIZE + 2].isupper()
        else line[PREFIX_SIZE:] + b"\n"
        for line in log.split(b"\n")[:-1]
        if line[STAMP_SIZE + 1 : STAMP_SIZE + 2].lower() == tag
    )
