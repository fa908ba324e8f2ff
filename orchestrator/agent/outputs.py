"""Both streams of a rank, from their pipes to its log."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Mapping, Sequence

from orchestrator.agent.output import Output
from orchestrator.agent.rank_log import RankLog
from orchestrator.agent.stamp import Clock

_SMALL = 4096
_F_SETPIPE_SZ = 1031
"""Linux's number; Python's fcntl names it from 3.10 on."""
_PIPES_TOTAL = 1 << 25
"""Bytes of pipe buffers for all ranks of a node; a user has 64 MiB before pipes get tiny."""


class Outputs:
    def __init__(self, poller: select.poll, log: RankLog, clock: Clock) -> None:
        self._poller = poller
        self._log = log
        self._clock = clock
        self._open: dict[int, Output] = {}
        self._stderr: Output | None = None

    def __bool__(self) -> bool:
        """Whether anything may still come."""
        return bool(self._open)

    @property
    def stderr(self) -> str:
        """Its end."""
        return self._stderr.tail.decode("utf-8", "replace") if self._stderr else ""

    def open(self, env: Mapping[str, str]) -> list[int]:
        """The ends to write to, of stdout and stderr; the caller closes them."""
        ends = []
        for tag in (b"o", b"e"):
            reading, writing = os.pipe()
            _widen(writing, env)
            ends.append(writing)
            self._stderr = self._open[reading] = Output(tag, reading, self._log, self._clock)
            self._poller.register(reading, select.POLLIN)
        return ends

    def read(self, ready: Sequence[int]) -> bool:
        """A block of each that has any; whether one of them was small."""
        small = False
        for descriptor in ready:
            output = self._open.get(descriptor)
            if output is not None:
                size = output.read()
                small |= size < _SMALL
                if not size:
                    self._drop(output)
        return small

    def take(self) -> int:
        """Read what was written until now, and log none of it yet; the number of bytes."""
        return sum([output.take() for output in self._open.values()])

    def log_taken(self) -> None:
        for output in self._open.values():
            output.log_taken()

    def flush_at(self) -> float | None:
        """When to flush if nothing more comes (monotonic seconds), None where nothing waits."""
        due = [at for output in self._open.values() if (at := output.flush_at()) is not None]
        return min(due, default=None)

    def flush_silent(self) -> None:
        now = time.monotonic()
        for output in self._open.values():
            at = output.flush_at()
            if at is not None and at <= now:
                output.flush()

    def close(self) -> None:
        for output in list(self._open.values()):
            self._drop(output)

    def _drop(self, output: Output) -> None:
        output.flush()
        self._poller.unregister(output.descriptor)
        os.close(output.descriptor)
        del self._open[output.descriptor]


def _widen(pipe: int, env: Mapping[str, str]) -> None:
    """Fewer switches between rank and shim; a kernel that refuses leaves the 64 KiB there are."""
    ranks = int(env.get("LOCAL_WORLD_SIZE") or 1)
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, min(1 << 20, _PIPES_TOTAL // (2 * ranks)))
