"""The processes of this machine as /proc shows them."""

from __future__ import annotations

import os
import signal
from collections.abc import Container, Iterable

from orchestrator.agent.linux import open_pidfd

_SIGTERM_BIT = 1 << (signal.SIGTERM - 1)


class Process:
    """A pid is reused; with `start` (clock ticks since boot, field 22 of stat) it is unique."""

    __slots__ = ("name", "pid", "ppid", "start")

    def __init__(self, pid: int, ppid: int, start: int, name: str) -> None:
        self.pid = pid
        self.ppid = ppid
        self.start = start
        self.name = name

    def alive(self) -> bool:
        now = read_process(self.pid)
        return now is not None and now.start == self.start


def read_process(pid: int) -> Process | None:
    """None where there is no such process or it is a zombie."""
    try:
        stat = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    head, _, tail = stat.rpartition(b")")  # the name may hold spaces and parentheses itself
    fields = tail.split()
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    name = head.partition(b"(")[2].decode("utf-8", "replace")
    return Process(pid, int(fields[1]), int(fields[19]), name)


def process_table() -> dict[int, Process]:
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    return {pid: found for pid in pids if (found := read_process(pid)) is not None}


def descendants(root: int, table: dict[int, Process]) -> list[Process]:
    """Every process below `root`, not `root` itself."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.ppid, []).append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [process.pid for process in below]
    return found


def ancestors(pid: int, table: dict[int, Process]) -> set[int]:
    """`pid` and every process above it."""
    found = set()
    while pid in table and pid not in found:
        found.add(pid)
        pid = table[pid].ppid
    return found


def bearers(marks: Container[str | None], among: Iterable[Process]) -> list[Process]:
    """Those of this user's processes whose environment holds one of these as PTX_MARK."""
    return [process for process in among if environment_value(process.pid, "PTX_MARK") in marks]


def environment_value(pid: int, name: str) -> str | None:
    """What this user's process was given under `name` when it was started, else None."""
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            return None
        data = _read_all(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    wanted = name.encode() + b"="
    for item in data.split(b"\0"):
        if item.startswith(wanted):
            return os.fsdecode(item[len(wanted) :])
    return None


def sigterm_is_stuck(pid: int) -> bool:
    """Whether a SIGTERM waits there undelivered, because the process blocks it."""
    try:
        status = _read(f"/proc/{pid}/status")
    except OSError:
        return False
    pending = status.partition(b"\nShdPnd:")[2].split(maxsplit=1)
    return bool(pending) and bool(int(pending[0], 16) & _SIGTERM_BIT)


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler of its own for this signal."""
    try:
        status = _read(f"/proc/{pid}/status")
    except OSError:
        return False
    caught = status.partition(b"\nSigCgt:")[2].split(maxsplit=1)
    return bool(caught) and bool(int(caught[0], 16) & (1 << (number - 1)))


def send(process: Process, number: int) -> None:
    """Signal exactly this process; one that is gone, or not ours to signal, is left alone."""
    pidfd = open_pidfd(process.pid)
    try:
        if not process.alive():
            return
        if pidfd is None:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_all(descriptor)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    parts = []
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
    return b"".join(parts)
