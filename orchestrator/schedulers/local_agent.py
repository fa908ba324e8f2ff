"""The agent of one attempt of a local run: started, waited for, and ended with all that it left."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.agent.attempts import attempt_numbers
from orchestrator.agent.classes import no_sign_of_life
from orchestrator.agent.ending import Ending
from orchestrator.agent.place import mark_of
from orchestrator.agent.processes import Process, bearers, descendants, process_table
from orchestrator.agent.silence import Silence
from orchestrator.agent.stderr import tell
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import host_name
from orchestrator.schedulers.signals import Signals

NODE = 0
REFRESH_SECONDS = 3600.0
END_SECONDS = 18
"""How long the agent may take, beyond the ranks' own grace, before it is killed."""
KILL_AGAIN_SECONDS = 1.0


class LocalAgent:
    """The agent process of one attempt on this machine: started, watched and ended here."""

    def __init__(
        self, layout: RunLayout, plan: Mapping[str, Any], attempt: int, devices: Sequence[str]
    ) -> None:
        self._layout = layout
        self._grace = float(plan["grace_seconds"])
        self._silence = Silence(layout.root, attempt, 1, plan["restart"])
        self._kill_at = math.inf
        self.lifeless: Mapping[int, float] = {}
        """Seconds for which it gave no sign of life, where it was ended for that."""
        self._pid = _start(layout, attempt, devices)

    def wait(self, signals: Signals, refresh: Callable[[], None]) -> int:
        """Its exit code, minus the signal's number where one ended it, once nothing that it
        started is left. It is told to end where the supervisor is; `refresh` is called now and
        then."""
        while (status := _reaped(self._pid)) is None:
            self._see_to(signals)
            left = self._kill_at - time.monotonic()
            due = self._silence.due() if left == math.inf else left
            signals.pause(min(REFRESH_SECONDS, due))
            refresh()
        # The agent leaves nothing when it ends; one that was killed could not see to that.
        end_leftovers(self._layout, self._grace, below=os.getpid())
        return os.waitstatus_to_exitcode(status)

    def _see_to(self, signals: Signals) -> None:
        now = time.monotonic()
        if now >= self._kill_at:
            os.kill(self._pid, signal.SIGKILL)
            self._kill_at = now + KILL_AGAIN_SECONDS
        elif self._kill_at < math.inf:
            return
        elif signals.stop:
            os.kill(self._pid, signal.SIGTERM)
            self._kill_at = now + self._grace + END_SECONDS
        elif found := self._silence.look():
            tell(no_sign_of_life([host_name()], found))
            self.lifeless = found
            self._kill_at = now  # frozen, it hears of nothing but SIGKILL


def _start(layout: RunLayout, attempt: int, devices: Sequence[str]) -> int:
    agent = str(layout.bundle / "agent.pyz")
    tie = f"--parent-death={os.getpid()}"
    argv = [sys.executable, "-I", "-S", agent, "node", tie, str(layout.plan)]
    bound = {
        "PTX_ATTEMPT": str(attempt),
        "PTX_NODE_RANK": str(NODE),
        # UUIDs mean the same whatever order the CUDA library counts in; "" hides all GPUs
        # from a run on CPU, which holds no lease.
        "CUDA_VISIBLE_DEVICES": ",".join(devices),
    }
    return os.posix_spawn(
        sys.executable,
        argv,
        os.environ | bound,
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )


def end_leftovers(layout: RunLayout, grace: float, *, below: int = 0) -> None:
    """End whatever bears the mark of any attempt of the run on this machine, and all descendants
    of `below`: SIGTERM, and after `grace` seconds SIGKILL. Returns when nothing is left."""
    numbers = attempt_numbers(layout.root / "attempts")
    marks = {mark_of(layout.root, layout.run_id, attempt, NODE) for attempt in numbers}

    def left() -> list[Process]:
        table = process_table()
        found = bearers(marks, table.values()) + (descendants(below, table) if below else [])
        return list({process.pid: process for process in found}.values())

    Ending(left, grace).run()


def _reaped(agent: int) -> int | None:
    """Wait status of the agent once it has ended. Orphans that were given to us go too."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == agent:
            found = status
