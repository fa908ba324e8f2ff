"""Whether a launcher goes on though no rank of its attempt does: it would hold the GPUs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LEAST = 600.0
"""Seconds that a launcher has to end by itself, or `restart.hang_after` where that is longer."""
_LOOK = 30.0
"""Seconds between two looks at what other nodes' ranks left."""
_AWAKE = 10.0
"""Seconds between two calls beyond which the launcher may have been suspended with this agent."""


class Leftover:
    """Asked all the time while the launcher runs. Without `restart.hang_after` nobody is ended
    for standing still."""

    def __init__(self, node_dir: Path, node: int, plan: Mapping[str, Any]) -> None:
        after = (plan.get("restart") or {}).get("hang_after")
        self._after = None if after is None else max(float(after), _LEAST)
        self._look = _LOOK if after is None else min(_LOOK, float(after) / 4)
        self._ranks = int(plan["procs_per_node"])
        others = (number for number in range(int(plan.get("nodes") or 1)) if number != node)
        self._at_work = [node_dir.with_name(f"node-{number:04d}") for number in others]
        self.over = False
        """No node has a rank left, so that none can stand still."""
        self._lasted, self._asked = 0.0, time.monotonic()
        self._next_look = 0.0

    def poll(self, *, ended: bool) -> bool:
        """Whether the launcher is to be ended now. `ended`: all ranks of this node have, and well;
        it may wait for those of another node, which still write the model."""
        now = time.monotonic()
        gap, self._asked = min(now - self._asked, _AWAKE), now
        self.over = self._after is not None and ended and self._is_over(now)
        self._lasted = self._lasted + gap if self.over else 0.0
        return self.over and self._lasted > float(self._after or 0)

    def _is_over(self, now: float) -> bool:
        """Whether no other node has a rank left."""
        if self._at_work and now >= self._next_look:
            self._next_look = now + self._look
            while self._at_work and _records(self._at_work[0]) >= self._ranks:
                del self._at_work[0]
        return not self._at_work


def _records(folder: Path) -> int:
    try:
        return sum(entry.name.endswith(".exit.json") for entry in os.scandir(folder))
    except OSError:
        return 0
