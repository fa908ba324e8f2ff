"""The process of one rank, from its start until it was reaped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping

from orchestrator.agent.spawn import spawn


class RankProcess:
    """Times are epoch seconds, 0.0 for what was not yet."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.started = self.ended = 0.0
        self.max_rss_bytes = 0
        self._status: int | None = None

    @property
    def has_ended(self) -> bool:
        return self._status is not None

    def start(
        self, argv: list[str], env: Mapping[str, str], mask: set[int], stdout: int, stderr: int
    ) -> None:
        """`mask`: its blocked signals. Raises OSError where it cannot be run at all."""
        self.started = time.time()
        try:
            self.pid = spawn(argv, env, mask=mask, stdout=stdout, stderr=stderr)
        except OSError:
            self.ended = time.time()
            raise

    def reap(self) -> bool:
        """Take its exit, and those of the orphans that this subreaper adopted; whether its own was
        among them."""
        found = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            if pid == self.pid:
                self.ended = time.time()
                self._status = status
                self.max_rss_bytes = usage.ru_maxrss * 1024
                found = True

    @property
    def code(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        if self._status is None:  # it hangs in the kernel and will end when that lets go of it
            return -signal.SIGKILL
        return os.waitstatus_to_exitcode(self._status)
