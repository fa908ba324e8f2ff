"""One of a rank's two streams, from its pipe to the log."""

from __future__ import annotations

import fcntl
import os
import sys
import time

from orchestrator.agent.rank_log import RankLog
from orchestrator.agent.stamp import BLOCK, Clock, Stamper

_SILENCE = 0.2
"""Seconds after which text without a newline is shown: a prompt."""
_OVERDUE = 1.0
"""The same for text that keeps coming without a newline: a progress bar."""
_TAIL = 1 << 15


class Output:
    def __init__(self, tag: bytes, descriptor: int, log: RankLog, clock: Clock) -> None:
        self.descriptor = descriptor
        self.tail = b""
        self._stamper = Stamper(tag)
        self._log = log
        self._clock = clock
        self._taken: list[bytes] = []
        self._since = 0.0
        self._last = 0.0

    def read(self) -> int:
        """Take one block; the number of bytes, 0 at the end."""
        data = os.read(self.descriptor, BLOCK)
        if not data:
            self.flush()
            return 0
        self._remember(data)
        self._write(data)
        return len(data)

    def take(self) -> int:
        """Read what is in the pipe now, which never waits for more, and log none of it yet; the
        number of bytes."""
        from termios import FIONREAD  # only now: the rank was not made to wait for it

        waiting = fcntl.ioctl(self.descriptor, FIONREAD, bytes(4))
        left = size = int.from_bytes(waiting, sys.byteorder)
        while left > 0 and (data := os.read(self.descriptor, min(left, BLOCK))):
            self._remember(data)
            self._taken.append(data)
            left -= len(data)
        return size

    def log_taken(self) -> None:
        for data in self._taken:
            self._write(data)
        self._taken.clear()

    def _remember(self, data: bytes) -> None:
        self.tail = (self.tail + data[-_TAIL:])[-_TAIL:]

    def _write(self, data: bytes) -> None:
        self._last = time.monotonic()
        held = bool(self._stamper.pending)
        parts = self._stamper.feed(data, self._clock.stamp())
        if parts:
            self._log.write(parts)
        if parts or not held:
            self._since = self._last

    def flush(self) -> None:
        if self._stamper.pending:
            self._log.write(self._stamper.flush(self._clock.stamp()))

    def flush_at(self) -> float | None:
        """When to flush if nothing more comes (monotonic seconds), None where nothing waits."""
        if not self._stamper.pending:
            return None
        return min(self._last + _SILENCE, self._since + _OVERDUE)
