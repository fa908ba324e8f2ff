"""Which nodes of an attempt give no sign of life, as a supervisor sees it: an agent that is frozen
together with its ranks, or whose machine is, notices nothing itself.

Each beat changes a heartbeat, so no clock is compared with another: what counts is for how long one
has stayed as it is, over many looks. Where the file server is away or full nobody's heart can beat.
So only such looks count at which it took and kept a file of the supervisor's own.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.agent.attempts import read_nodes
from orchestrator.agent.heartbeat import INTERVAL

_MISSED = 3
"""Beats that a node may miss, besides `restart.hang_after`."""
_LOOKS = 8
"""In that time, at most: a thousand nodes are a thousand files."""
_BYTES = 4096
"""Of a file system's room, and no less than a heartbeat takes."""
_BEAT = 64


class Silence:
    """Asked now and then. Without `restart.hang_after` nobody is silent."""

    def __init__(self, run_dir: Path, attempt: int, nodes: int, restart: Mapping[str, Any]) -> None:
        self._run_dir, self._attempt = run_dir, attempt
        self._folder = run_dir / "attempts" / f"{attempt:03d}"
        self._nodes = set(range(nodes))
        after = restart.get("hang_after")
        self._after = math.inf if after is None else float(after) + _MISSED * INTERVAL
        self._every = max(INTERVAL, self._after / _LOOKS)
        self._looked = time.monotonic()
        self._beats: dict[int, bytes] = {}
        self._still: dict[int, float] = {}

    def due(self) -> float:
        """Seconds until the next look; infinite where there is none."""
        return max(0.0, self._looked + self._every - time.monotonic())

    def look(self) -> dict[int, float]:
        """Node rank to seconds, of those that have been silent for too long; a look between two
        that are due sees nothing."""
        if self.due():
            return {}
        # The time of a job that was suspended, this supervisor with it, is none.
        passed = min(time.monotonic() - self._looked, self._every)
        if _is_kept(self._folder / f".probe-{os.urandom(8).hex()}"):
            self._count(passed)
        else:
            self._beats, self._still = {}, {}
        self._looked = time.monotonic()
        silent = {node: still for node, still in self._still.items() if still > self._after}
        if silent:
            # One that has ended beats no more, while another still writes the model.
            self._nodes -= read_nodes(self._run_dir, self._attempt).ended.keys()
        return {node: still for node, still in silent.items() if node in self._nodes}

    def _count(self, passed: float) -> None:
        before, self._beats = self._beats, {}
        for node in self._nodes:
            beat = _read(self._folder / f"node-{node:04d}" / "heartbeat", _BEAT)
            if beat:  # else it has not begun, or nobody can say
                self._beats[node] = beat
        self._still = {
            node: self._still.get(node, 0.0) + passed if before.get(node) == beat else 0.0
            for node, beat in self._beats.items()
        }


def _is_kept(probe: Path) -> bool:
    """Whether the file server takes a file, in no more time than is between two beats, and gives
    it back."""
    begun, written = time.monotonic(), os.urandom(_BYTES)
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, written)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        kept = _read(probe, _BYTES) == written
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return kept and time.monotonic() < begun + INTERVAL


def _read(path: Path, size: int) -> bytes:
    """Its beginning, as it is now: a client of NFS asks the server once somebody opens the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, size)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
