"""Who a process is, so that its death can be told from another's life."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Process:
    """A pid alone is reused; host, boot and start time (clock ticks since boot) make it unique."""

    host: str
    boot_id: str
    pid: int
    start: int
    pid_namespace: str = ""
    """Where that pid counts: a container on this host may have others; "" is not told."""

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Process | None:
        """The process an event names, or None where the event does not say."""
        host, boot, pid, start = (fields.get(key) for key in ("host", "boot_id", "pid", "start"))
        if isinstance(host, str) and isinstance(boot, str) and isinstance(pid, int):
            namespace = str(fields.get("pid_namespace") or "")
            return cls(host, boot, pid, start, namespace) if isinstance(start, int) else None
        return None


Liveness = Callable[[Process], bool | None]
"""True: it runs. False: it is gone. None: cannot be known from here."""


@cache
def host_name() -> str:
    return os.uname().nodename


def user_name() -> str:
    """Of the person who types; a container may know only the number."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@cache
def pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - `pid:[4026531836]` is no path


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, None when there is no such process or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before it may hold spaces and parentheses
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def this_process() -> Process:
    pid = os.getpid()
    return Process(host_name(), boot_id(), pid, start_time(pid) or 0, pid_namespace())


def alive(process: Process) -> bool | None:
    """Liveness on this machine; the processes of another host or container are unknown."""
    if process.host != host_name():
        return None
    if process.boot_id != boot_id():
        return False
    if process.pid_namespace not in ("", pid_namespace()):
        return None
    return start_time(process.pid) == process.start


def is_argument(folder: Path) -> bool:
    """Whether a process of this machine was given a path in this folder as an argument."""
    inside = os.fsencode(folder) + b"/"
    return any(
        argument.startswith(inside)
        for pid in os.listdir("/proc")  # noqa: PTH208 - names alone
        if pid.isdecimal()
        for argument in _arguments(pid)
    )


def _arguments(pid: str) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:  # ended while we looked, or another user's
        return []
