"""Files with exactly the mode that the run asks for, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path


def open_log(path: Path, mode: int) -> int:
    """A descriptor to append to, made where there is none. Raises OSError."""
    return _open(path, os.O_APPEND, mode)


def open_in_place(path: Path, mode: int) -> int:
    """A descriptor to rewrite with pwrite, made where there is none. Raises OSError."""
    return _open(path, 0, mode)


def _open(path: Path, flags: int, mode: int) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, mode)
    try:
        os.fchmod(descriptor, mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
