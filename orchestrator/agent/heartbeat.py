"""The sign of life of a node: 64 bytes, rewritten in place."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from orchestrator.agent.files import open_in_place

INTERVAL = 30.0
"""Seconds between two beats."""
_SIZE = 64


class Heartbeat:
    def __init__(self, path: Path, mode: int) -> None:
        self._path = path
        self._mode = mode
        self._descriptor: int | None = None
        self._sequence = 0
        self._next = 0.0

    def beat_if_due(self) -> None:
        """Never raises: a full disk must not end a run that goes on well."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL
        record = json.dumps({"t": round(time.time(), 3), "seq": self._sequence})
        self._sequence += 1
        try:
            if self._descriptor is None:
                self._descriptor = open_in_place(self._path, self._mode)
            os.pwrite(self._descriptor, record.ljust(_SIZE - 1).encode() + b"\n", 0)
            # At the file server now, so that its time of the file tells how this clock is off.
            os.fsync(self._descriptor)
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        """A file server that has forgotten this descriptor takes another one."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None
