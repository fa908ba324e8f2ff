"""Detached processes that are known by pid and start time, so that no stranger is ever hit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

Condition = Callable[[], bool]


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from its third field on; empty when the process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] in "ZX" else fields


def start_time(pid: int) -> str | None:
    """Clock ticks after boot at which it started; None when it is gone or a zombie."""
    fields = _stat(pid)
    return fields[19] if fields else None


def parent(pid: int) -> int:
    """0 when the process is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def environment(pid: int) -> dict[bytes, bytes]:
    try:
        items = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    return {name: value for name, _, value in (item.partition(b"=") for item in items)}


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def spawn_detached(argv: Sequence[str], record: Path, log: Path, env: dict[str, str]) -> None:
    """Start a daemon in the foreground mode of its own, in a session of its own.

    It holds none of the caller's pipes: a test runner that waits for their end would hang.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env=env,
        )
    record.write_text(f"{process.pid} {start_time(process.pid)}\n")


def running_pid(record: Path) -> int | None:
    try:
        pid, started = record.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == started else None


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def end(record: Path, *, timeout: float = 5) -> None:
    """SIGTERM, and SIGKILL after `timeout` seconds."""
    if (pid := running_pid(record)) is not None:
        send(pid, signal.SIGTERM)
        if not wait_until(lambda: running_pid(record) is None, timeout):
            send(pid, signal.SIGKILL)
            wait_until(lambda: running_pid(record) is None, timeout)
    record.unlink(missing_ok=True)


def wait_until(condition: Condition, timeout: float, every: float = 0.1) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
