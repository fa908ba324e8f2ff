"""CPU and memory of this node, as far as they are this run's to use."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

_MOUNT = "/sys/fs/cgroup"
_TICKS = os.sysconf("SC_CLK_TCK")


class Cpu:
    """Cores in use: of the job's cgroup where the job has a part of the machine, else of all."""

    def __init__(self) -> None:
        self._limited = _limited()
        self._cores = _cores()
        self._last = self._seconds()
        self._at = time.monotonic()

    def sample(self) -> dict[str, Any]:
        """`used`: mean number of busy cores since the last call; None where it cannot be read."""
        now, seconds = time.monotonic(), self._seconds()
        used = None
        if seconds is not None and self._last is not None and now > self._at:
            used = round(max(0.0, seconds - self._last) / (now - self._at), 2)
        self._last, self._at = seconds, now
        return {"used": used, "cores": self._cores}

    def _seconds(self) -> float | None:
        """CPU seconds so far."""
        if self._limited is not None:
            usage = _field(self._limited + "/cpu.stat", "usage_usec")
            if usage is not None:
                return usage / 1e6
        words = _read("/proc/stat").partition("\n")[0].split()[1:9]
        if len(words) < 8:
            return None
        busy = [int(word) for place, word in enumerate(words) if place not in (3, 4)]
        return sum(busy) / _TICKS  # all but idle and iowait


def memory() -> dict[str, Any]:
    """`used` without what the kernel can give back, and the `limit`, in bytes."""
    folder = _limited()
    if folder is not None:
        used, limit = _number(folder + "/memory.current"), _number(folder + "/memory.max")
        if used is not None:
            cache = _field(folder + "/memory.stat", "inactive_file") or 0
            return {"used": max(0, used - cache), "limit": limit}
    total = _field("/proc/meminfo", "MemTotal:")
    free = _field("/proc/meminfo", "MemAvailable:")
    if total is None or free is None:
        return {"used": None, "limit": None if total is None else total * 1024}
    return {"used": (total - free) * 1024, "limit": total * 1024}


def _limited() -> str | None:
    """The nearest cgroup (version 2) at or above this process's that limits memory, as SLURM's
    does; None where none does."""
    for folder in _folders():
        if _number(folder + "/memory.max") is not None:
            return folder
    return None


def _folders() -> Iterator[str]:
    for line in _read("/proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            path = line[3:].rstrip("/")
            while path:
                yield _MOUNT + path
                path = path.rpartition("/")[0]
            yield _MOUNT  # a container's own limit


def _cores() -> int:
    """Cores that may be used; a quota rounded up."""
    cores = len(os.sched_getaffinity(0))
    for folder in _folders():
        words = _read(folder + "/cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            cores = min(cores, max(1, -(-int(words[0]) // max(1, int(words[1])))))
    return cores


def _field(path: str, name: str) -> int | None:
    for line in _read(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no number


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - often
            return file.read()
    except OSError:
        return ""
