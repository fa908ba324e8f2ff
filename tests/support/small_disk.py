"""A disk of eight megabytes, to be filled up: a tmpfs of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mounted at `folder`, which is made. Raises CalledProcessError where that is not allowed."""
    folder.mkdir()
    options = ["-o", "size=8m,mode=0700"]
    subprocess.run(["mount", "-t", "tmpfs", *options, "ptx-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """To the last byte; the file to be removed for room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


@cache
def can_mount() -> bool:
    """Whether there can be one here: for root, and not in every container."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="ptx-mount-") as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "ptx-test", folder], capture_output=True)
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)
    return mounted.returncode == 0
