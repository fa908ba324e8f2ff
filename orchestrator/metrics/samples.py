"""samples.jsonl of a node: what its sampler saw of GPUs, CPU and memory every few seconds."""

from __future__ import annotations

import json
import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = 1
NAME = "samples.jsonl"
BAD_REASONS = ("hw_slowdown", "hw_thermal", "sw_thermal", "hw_power_brake")
"""Of `throttle`. A power cap is how a GPU at full load is run, and no fault."""
BUSY = 50
"""Percent of utilisation; of a sample below it throttling costs nothing."""
_LATEST = 1e12
_BLOCK = 1 << 20
_TAIL = 8 << 10
"""A sample of 8 GPUs and ranks is 2 KiB."""
_LONGEST = 1 << 20
"""A line beyond this is no sample: 64 GPUs and ranks are 32 KiB."""


def read(
    path: Path, since: float | None = None, *, last: int | None = None
) -> Iterator[dict[str, Any]]:
    """The samples of one file in time order, those at or after `since` (epoch seconds).

    `last`: only those in so many bytes at its end. Torn and foreign lines are left out, a file
    that is missing or goes away is an empty one. Never more than one block and one line are in
    memory.
    """
    for line in _lines(path, last):
        sample = parse(line)
        if sample is not None and (since is None or sample["t"] >= since):
            yield sample


def newest(path: Path) -> dict[str, Any] | None:
    """The last sample, without reading the file from its start."""
    for size in (_TAIL, 16 * _TAIL):
        found = deque(read(path, last=size), maxlen=1)
        if found:
            return found[0]
    return None


def parse(line: bytes) -> dict[str, Any] | None:
    """A sample that has a time, None for anything else."""
    if len(line) > _LONGEST:
        return None
    try:
        sample = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(sample, dict) or sample.get("v") != VERSION:
        return None
    t = sample.get("t")
    if isinstance(t, bool) or not isinstance(t, int | float) or not abs(t) < _LATEST:
        return None
    return sample


def _lines(path: Path, last: int | None) -> Iterator[bytes]:
    """Those that are whole; with `last` the first may be half of one, which is no JSON."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        if last is not None:
            os.lseek(descriptor, max(0, status.st_size - last), os.SEEK_SET)
        rest = b""
        while block := os.read(descriptor, _BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > _LONGEST:
                rest = b"{" * (_LONGEST // 2)  # however this line ends, it is no sample
    except OSError:
        return  # it went away while it was read
    finally:
        os.close(descriptor)
