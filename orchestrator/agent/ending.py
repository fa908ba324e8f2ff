"""End a set of processes: SIGTERM, some time to save, SIGKILL until nothing is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from orchestrator.agent.processes import Process, send, sigterm_is_stuck

SHIM = "ptx-shim"
"""The name a shim gives itself."""
STEP = 0.2
"""Seconds between two steps of an ending."""
_RECORD_SECONDS = 3.0
"""How long a shim has, after its rank was killed, to write the exit record."""
_STUCK_SECONDS = 1.0
_KILL_SECONDS = 12.0
"""After so long a process that survives SIGKILL hangs in the kernel; nothing here can end it."""


class Ending:
    """Called step by step, because new processes may appear while the old ones end."""

    def __init__(
        self, find: Callable[[], list[Process]], grace: float, *, with_launcher: bool = True
    ) -> None:
        self._find = find
        self._with_launcher = with_launcher
        self._told: set[tuple[int, int]] = set()
        self._begun = time.monotonic()
        self._kill_at = self._begun + grace
        self.left: list[Process] = []

    def step(self) -> bool:
        """Go on; True when nothing is left or nothing more can be done (then `left` names it)."""
        now = time.monotonic()
        self.left = self._find()
        if not self.left:
            return True
        if now < self._kill_at and self._hopeless(now):
            self._kill_at = now
        if now < self._kill_at:
            self._ask()
            return False
        self._kill(shims_too=now >= self._kill_at + _RECORD_SECONDS)
        return now >= self._kill_at + _KILL_SECONDS

    def run(self) -> bool:
        """All steps; whether nothing is left."""
        while not self.step():
            time.sleep(STEP)
        return not self.left

    def _ask(self) -> None:
        for process in self.left:
            if (process.pid, process.start) not in self._told:
                self._told.add((process.pid, process.start))
                send(process, signal.SIGTERM)

    def _kill(self, *, shims_too: bool) -> None:
        for process in self.left:
            if shims_too or process.name != SHIM:
                send(process, signal.SIGKILL)

    def _hopeless(self, now: float) -> bool:
        """Nobody left can react: launchers without ranks, which block SIGTERM on our account.

        A rank that blocks it for a while, to save undisturbed, has the whole grace: its shim
        is among those left.
        """
        return (
            self._with_launcher
            and now > self._begun + _STUCK_SECONDS
            and all(process.name != SHIM and sigterm_is_stuck(process.pid) for process in self.left)
        )
