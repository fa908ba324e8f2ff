"""The agent's side of the sampler: start it, and end it without waiting for it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from orchestrator.agent.processes import Process, read_process
from orchestrator.agent.spawn import spawn

INTERVAL = 5.0
"""Seconds between two samples."""
_MASK = {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP}
"""SLURM sends these to all of a step: the ranks may save for long yet, and are worth watching."""
_REAP_SECONDS = 0.2


class Sampler:
    """None of its methods raises: a node that cannot be sampled trains as well."""

    def __init__(self) -> None:
        self.process: Process | None = None
        """It, while it runs. No process of the run: nobody waits for its end."""

    def start(self, node_dir: Path, mode: int, ranks: int, devices: str | None) -> None:
        """`devices`: as CUDA_VISIBLE_DEVICES names them; None on CPU."""
        archive = Path(sys.argv[0])
        if archive.suffix != ".pyz":
            return
        words = [str(node_dir), oct(mode)[2:], str(INTERVAL), str(ranks), devices or ""]
        argv = [sys.executable, "-I", "-S", str(archive), "sample", *words]
        try:
            nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        try:
            pid = spawn(
                argv,
                os.environ,
                mask=_MASK,
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                new_session=True,
            )
            self.process = read_process(pid)
        except OSError:
            return
        finally:
            os.close(nothing)

    def reaped(self, pid: int) -> None:
        if self.process is not None and self.process.pid == pid:
            self.process = None

    def end(self) -> None:
        """SIGKILL, and a moment to reap it. One that hangs in the driver is left to the kernel."""
        if self.process is None:
            return
        pid = self.process.pid
        self.process = None
        deadline = time.monotonic() + _REAP_SECONDS
        with contextlib.suppress(ProcessLookupError, ChildProcessError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.01)
