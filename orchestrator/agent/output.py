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
        self._since = 0.0
        self._last = 0.0

    def read(self) -> int:
        """Take one block; the number of bytes, 0 at the end."""
        data = os.read(self.descriptor, BLOCK)
        if not data:
            self.flush()
            return 0
        self._last = time.monotonic()
        held = bool(self._stamper.pending)
        parts = self._stamper.feed(data, self._clock.stamp())
        if parts:
            self._log.write(parts)
        if parts or not held:
            self._since = self._last
        self.tail = (self.tail + data[-_TAIL:])[-_TAIL:]
        return len(data)

    def drain(self) -> None:
        """Take what is in the pipe now: never waits for more, however long the log takes."""
        from termios import FIONREAD  # only now: the rank was not made to wait for it

        waiting = fcntl.ioctl(self.descriptor, FIONREAD, bytes(4))
        left = int.from_bytes(waiting, sys.byteorder)
        while left > 0:
            left -= self.read()

    def flush(self) -> None:
        if self._stamper.pending:
            self._log.write(self._stamper.flush(self._clock.stamp()))

    def flush_at(self) -> float | None:
        """When to flush if nothing more comes (monotonic seconds), None where nothing waits."""
        if not self._stamper.pending:
            return None
        return min(self._last + _SILENCE, self._since + _OVERDUE)
