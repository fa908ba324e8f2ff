"""The two files through which a node's agent and its ranks talk: a request to stop, and steps done.

They lie on the node's own disk, so looking at one costs a system call and nothing else.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

STOP_VARIABLE, STEP_VARIABLE = "PTX_STOP_FILE", "PTX_STEP_FILE"
_TOUCH_SECONDS = 1.0


class AgentFiles:
    """For local rank 0 alone; all others, and whoever runs without ptx, have none to look at."""

    def __init__(
        self,
        stop: Path | None = None,
        step: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop, self._step, self._clock = stop, step, clock
        self._touched = -_TOUCH_SECONDS
        self.reason: str | None = None
        """Why the agent asked for a stop, where it did: time-limit, preempted, ..."""

    @classmethod
    def of(cls, environ: Mapping[str, str], local_rank: int) -> AgentFiles:
        if local_rank != 0:
            return cls()
        stop, step = environ.get(STOP_VARIABLE), environ.get(STEP_VARIABLE)
        return cls(Path(stop) if stop else None, Path(step) if step else None)

    def asked(self) -> bool:
        """Whether a stop is asked for; once it is, it stays so."""
        if self.reason is None and self._stop is not None and os.path.lexists(self._stop):
            self.reason = _reason_in(self._stop)
        return self.reason is not None

    def touch(self, steps: tuple[int, int] | None = None) -> None:
        """Say that a step was done, at most once a second. A full disk is no reason to stop.
        `steps`: those that were done when training began, and those that are now."""
        if self._step is None or self._clock() - self._touched < _TOUCH_SECONDS:
            return
        self._touched = self._clock()
        with suppress(OSError):
            self._step.touch(mode=0o600)  # by itself: a full disk refuses only what follows
            if steps is not None:
                with self._step.open("r+") as file:  # never empty: a rank may be killed at any time
                    file.write(f"{steps[0]:12} {steps[1]:12}\n")


def _reason_in(path: Path) -> str:
    try:
        reason = json.loads(path.read_bytes())["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return "asked to"  # an empty file asks as well
    return str(reason)
