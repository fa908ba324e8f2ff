"""The log file of one rank. Whatever its disk does, the rank is never made to wait or die."""

from __future__ import annotations

import contextlib
import errno
import os
import time

from orchestrator.agent.log_limits import Limits
from orchestrator.agent.log_parts import LogParts
from orchestrator.agent.stamp import PREFIX_SIZE, STAMP_SIZE, Parts

_TAIL = 1 << 15
_TOUCH = 1.0
"""Seconds between two marks that the rank prints what cannot be written."""
_NEWLINE = ord("\n")
_UNLIMITED = Limits()


class RankLog:
    """Append-only. What cannot be written is dropped and counted, and writing is tried again."""

    def __init__(self, path: str, mode: int, limits: Limits = _UNLIMITED) -> None:
        self._parts = LogParts(path, limits)
        self._mode = mode
        self._descriptor: int | None = None
        self._torn = False
        self._gap = 0
        self._reason = ""
        self._next_touch = 0.0
        self._tail = b""
        self.log_bytes = 0
        self.lost_bytes = 0
        """Bytes, stamps counted, that are not in the file."""
        self.first_error: str | None = None
        self.write([])

    def write(self, parts: Parts) -> None:
        """Append whole stamped lines."""
        if parts:
            self._remember(parts)
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            if parts:
                self._close_gap(bytes(parts[0][:STAMP_SIZE]))
            before = self.log_bytes
            rest = self._append(parts)
            if self._parts.grown(self.log_bytes - before) and not rest:
                self.close()
                self._parts.turn()
        except OSError as error:
            self._reason = _reason(error)
            rest = parts
        if rest:
            self._lose(rest)

    @property
    def dropped_bytes(self) -> int:
        """Of old parts that had to go."""
        return self._parts.dropped_bytes

    def last_lines(self, count: int) -> list[str]:
        """The newest lines without their stamps, each cut to its last 2,000 characters."""
        lines = self._tail.split(b"\n")[:-1][-count:]
        return [line[PREFIX_SIZE:][-2000:].decode("utf-8", "replace") for line in lines]

    def close(self) -> None:
        """Never raises: what a file server says only now, of a quota perhaps, ends no rank."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with contextlib.suppress(OSError):  # it is closed all the same
                os.close(descriptor)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._parts.path, flags, self._mode)
        # Somebody else's file, as after a change of user, can be written all the same.
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, self._mode)
        self._parts.begun(os.fstat(descriptor).st_size)
        return descriptor

    def _append(self, parts: Parts) -> Parts:
        """Write; return what was left when the disk refused."""
        assert self._descriptor is not None  # noqa: S101 - for the type checker
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            try:
                written = os.writev(self._descriptor, left)
            except OSError as error:
                self._reason = _reason(error)
                return list(left)
            self.log_bytes += written
            while left and written >= len(left[0]):
                written -= len(left[0])
                self._torn = left.pop(0)[-1] != _NEWLINE
            if written:
                self._torn = left[0][written - 1] != _NEWLINE
                left[0] = left[0][written:]
        return []

    def _close_gap(self, stamp: bytes) -> None:
        """Say in the log itself what is missing there, now that it can be written again."""
        if not self._gap and not self._torn:
            return
        notice = b"\n" if self._torn else b""
        if self._gap:
            text = f"ptx: {self._gap} bytes of this log were lost here: {self._reason}"
            notice += stamp + b" e " + text.encode() + b"\n"
        rest = self._append([notice])
        if rest:
            raise OSError(errno.EIO, self._reason)
        self._gap = 0

    def _lose(self, parts: Parts) -> None:
        size = sum(map(len, parts))
        self._gap += size
        self.lost_bytes += size
        if self.first_error is None:
            self.first_error = self._reason
        self._touch()

    def _touch(self) -> None:
        """Where no file can grow its time still can: a rank that prints is not to be called silent,
        and ended, because its disk is full."""
        now = time.monotonic()
        if now >= self._next_touch:
            self._next_touch = now + _TOUCH
            with contextlib.suppress(OSError):
                os.utime(self._parts.first)

    def _remember(self, parts: Parts) -> None:
        ends = b"".join(bytes(part[-_TAIL:]) for part in parts)
        self._tail = (self._tail + ends)[-_TAIL:]


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
