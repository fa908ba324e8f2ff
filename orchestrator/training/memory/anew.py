"""Starting a process anew in place: the same process id, arguments, streams and parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2


def parent_death_signal() -> int:
    """What the calling thread is sent when its parent ends; 0 for nothing."""
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    return number.value


def start_anew(changed: Mapping[str, str], *, parent_death: int, asked_to_stop: bool) -> NoReturn:
    """Replace this process by a new one of the same program; from any thread.

    The environment is the one this image began with, and `changed`. `parent_death` is the main
    thread's `parent_death_signal`: it belongs to a thread, and the calling one survives. With
    `asked_to_stop` the new image finds SIGTERM pending, blocked until it can act on it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _end_children()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, parent_death, 0, 0, 0)
    if asked_to_stop:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.raise_signal(signal.SIGTERM)  # to this thread
    _close_on_exec()
    os.execve(  # noqa: S606 - an argument list; no shell is wanted
        sys.executable, [sys.executable, *sys.orig_argv[1:]], {**_first_environment(), **changed}
    )


def _end_children() -> None:
    """Compilers' workers and trackers' helpers serve an image that is no more."""
    for listed in Path("/proc/self/task").glob("*/children"):
        for pid in listed.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _close_on_exec() -> None:
    """Sockets that stay open would keep a server's port, and a GPU's its memory."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, while they come and go
        with suppress(OSError):
            if int(entry) > 2:
                os.set_inheritable(int(entry), False)


def _first_environment() -> dict[str, str]:
    entries = Path("/proc/self/environ").read_bytes().split(b"\0")
    pairs = (entry.partition(b"=") for entry in entries if entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
