"""The few calls that only Linux has."""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int | bytes) -> None:
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(ctypes.c_int(option), argument, *[ctypes.c_ulong(0)] * 3):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def set_parent_death_signal(number: int) -> None:
    """Have this signal sent here when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def become_subreaper() -> None:
    """Adopt orphans among the descendants, which init would adopt otherwise."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """The name that ps and /proc/PID/stat show; 15 bytes."""
    _prctl(_PR_SET_NAME, name.encode())


def keep_freed_memory(size: int) -> None:
    """Have malloc keep up to `size` bytes that were freed, where the C library can be told.

    glibc gives blocks of 128 KiB back to the kernel, which clears the pages before it hands them
    out again: for whoever works block by block that is half of the time.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, size)
        _libc.mallopt(_M_TRIM_THRESHOLD, size)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends.

    None on kernels before 5.3 and where the process is gone already: poll its start time then.
    """
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None
