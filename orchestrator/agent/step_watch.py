"""What a SLURM job's supervisor does about nodes that give no sign of life."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import no_sign_of_life
from orchestrator.agent.notice import give_notice
from orchestrator.agent.silence import Silence
from orchestrator.agent.stderr import tell

_LAST_WORDS = 45.0
"""Seconds in which the nodes that live take the stacks of their ranks, end them and say how."""
_KILL_AGAIN = 10.0


class StepWatch:
    """Over one attempt."""

    def __init__(
        self,
        run_dir: Path,
        attempt: int,
        nodes: Sequence[str],
        plan: Mapping[str, Any],
        allocation: Allocation,
    ) -> None:
        self._folder = run_dir / "attempts" / f"{attempt:03d}"
        self._hosts, self._allocation = list(nodes), allocation
        self._silence = Silence(run_dir, attempt, len(nodes), plan["restart"])
        self._kill_at = 0.0
        self.lifeless: Mapping[int, float] = {}
        """Node rank to seconds, of those for which the attempt was ended."""

    def look(self) -> None:
        """Now and then. The nodes that live end by themselves, as at any hang; what is frozen hears
        of nothing but SIGKILL."""
        if self.lifeless:
            self._kill()
        elif found := self._silence.look():
            self.lifeless = found
            tell(no_sign_of_life(self._hosts, found))
            others = len(self._hosts) > len(found)
            self._kill_at = time.monotonic() + (_LAST_WORDS if others else 0.0)
            if others:
                give_notice(self._folder, min(found))

    def _kill(self) -> None:
        if time.monotonic() < self._kill_at:
            return
        if steps := self._allocation.steps():
            self._allocation.signal_steps(steps, "KILL")
        self._kill_at = time.monotonic() + _KILL_AGAIN
