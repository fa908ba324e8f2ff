"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def cpu_count(proc: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores of the affinity mask, cut to the cgroup's quota (rounded up): in a container the
    machine's own count starves ranks that each believe to have all cores. At least 1."""
    cores = len(os.sched_getaffinity(0))
    quota = _quota(proc, mount)
    return max(1, min(cores, -int(-quota // 1))) if quota is not None else cores


def _quota(proc: Path, mount: Path) -> float | None:
    """The tightest quota, in cores, of this process's cgroup and those above it; None: none."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += _walk(mount, path, _unified)
        elif "cpu" in controllers.split(","):
            quotas += _walk(mount / "cpu", path, _legacy)
    return min(quotas, default=None)


def _walk(root: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """Inside a container the path may be the host's: what is missing here is passed over."""
    inner = Path(path.strip("/"))
    return [quota for part in (inner, *inner.parents) if (quota := read(root / part)) is not None]


def _unified(folder: Path) -> float | None:
    """cgroup v2: `cpu.max` holds "max 100000" or "150000 100000", in microseconds."""
    words = _words(folder / "cpu.max")
    if len(words) != 2 or words[0] == "max":
        return None
    return int(words[0]) / int(words[1])


def _legacy(folder: Path) -> float | None:
    """cgroup v1: a quota of -1 stands for none."""
    quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
    if not quota or not period or int(quota[0]) <= 0:
        return None
    return int(quota[0]) / int(period[0])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
