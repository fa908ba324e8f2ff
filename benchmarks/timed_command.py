"""A command with its output to a pipe or a terminal, and what it took."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from dataclasses import dataclass


@dataclass
class Ran:
    seconds: float
    cpu: float
    """Seconds of processor time, of its children too."""
    memory: float
    """Peak resident MiB of ptx itself."""
    out: bytes


def run(argv: list[str], env: dict[str, str], *, terminal: bool = False) -> Ran:
    """With output to a pipe, or to a terminal of 40 rows."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    begun = time.perf_counter()
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    out = bytearray()
    while True:
        try:
            block = os.read(ours, 1 << 20)
        except OSError:
            break
        if not block:
            break
        out += block
    os.close(ours)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Ran(time.perf_counter() - begun, cpu, usage.ru_maxrss / 1024, bytes(out))
