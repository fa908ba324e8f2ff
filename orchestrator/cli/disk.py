"""Whether a run's folder can take anything more."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.cli.output import size

_LITTLE = 1 << 20
"""Bytes; no checkpoint is that small, and a line of a log hardly fits."""


def full_disk_words(folder: Path) -> str:
    """What a person should know of the folder's disk; empty where there is room."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    left = found.f_bavail * found.f_frsize
    if left < _LITTLE:
        left_words = f"full, {size(left)} left"
    elif found.f_files and not found.f_favail:
        left_words = "full, it takes no more files"
    else:
        return ""
    return f"{left_words}: checkpoints, logs and metrics are not written until there is room"
