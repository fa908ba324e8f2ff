"""Files with exactly the mode that the run asks for, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path

_TAIL = 1 << 14
_LINE = 500


def open_log(path: Path, mode: int) -> int:
    """A descriptor to append to, made where there is none. Raises OSError."""
    return _open(path, os.O_WRONLY | os.O_APPEND, mode)


def open_lines(path: Path, mode: int) -> int:
    """A descriptor for `append_line`, made where there is none. Raises OSError."""
    return _open(path, os.O_RDWR | os.O_APPEND, mode)


def append_line(descriptor: int, line: bytes) -> None:
    """Durable when this returns; raises OSError where a part of it was not written.

    A disk that is full for a moment takes half a line: what comes later, from whomever, must not
    stand behind that and be lost with it.
    """
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    while line:
        line = line[os.write(descriptor, line) :]
    os.fsync(descriptor)


def open_in_place(path: Path, mode: int) -> int:
    """A descriptor to rewrite with pwrite, made where there is none. Raises OSError."""
    return _open(path, os.O_WRONLY, mode)


def last_line(path: Path) -> str:
    """The last line that has a letter or digit in it; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read(_TAIL).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    telling = (line.strip() for line in reversed(lines) if any(map(str.isalnum, line)))
    return next(telling, "")[:_LINE]


def _open(path: Path, flags: int, mode: int) -> int:
    descriptor = os.open(path, os.O_CREAT | os.O_CLOEXEC | flags, mode)
    try:
        os.fchmod(descriptor, mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
