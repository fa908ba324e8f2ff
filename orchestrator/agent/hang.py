"""Whether this node's ranks stand still, and when all nodes of the attempt take their stacks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.agent.first_step import silence_allowed
from orchestrator.agent.notice import SETTLE, give_notice, read_notice
from orchestrator.agent.printing import Printing

_LOOK = 2.0
"""Seconds between two looks at what other nodes and this one's logs say."""
_STALE = 60.0
"""Seconds; a notice so much older than this agent is of another start under the same number."""
_AWAKE = 10.0
"""Seconds between two looks beyond which this agent was not awake: nor were its ranks, where SLURM
had suspended the job."""
_FAR_LOOKS = 8
"""Looks at other nodes' logs within `hang_after`, at most."""
_READER = 0
"""The node whose agent judges by what the ranks of all nodes print."""


class Hang:
    """Asked from time to time while the ranks run.

    Ranks that touched the step file hang when they made no step for `restart.hang_after`. Until
    then they are judged by what those of all nodes print, by one node's agent: nothing for as long
    as `silence_allowed` says, after their first words.
    """

    def __init__(self, node_dir: Path, node: int, plan: Mapping[str, Any], step_file: Path) -> None:
        self._after = (plan.get("restart") or {}).get("hang_after")
        self._silence = None if self._after is None else silence_allowed(plan, float(self._after))
        self._node = node
        self._step_file = step_file
        self._folder = node_dir.parent
        nodes = int(plan.get("nodes") or 1)
        self._alone = nodes == 1
        self._printing = Printing(node_dir, node, nodes)
        self._begun = time.time()
        self._seen: int | None = None
        self._still, self._looked = 0.0, time.monotonic()
        self._next_look = self._next_far_look = 0.0
        self._due: float | None = None
        self.message = ""
        """Why, once it hangs."""

    def poll(self, *, ended: bool) -> bool:
        """Whether the ranks are to be ended now. `ended`: all of this node have, and well; they
        make no more steps while one of another node still writes the model."""
        if self._after is None:
            return False
        if self._due is None:
            self._notice_it(ended=ended)
        return self._due is not None and time.monotonic() >= self._due

    def _notice_it(self, *, ended: bool) -> None:
        now = time.monotonic()
        look = now >= self._next_look
        if look:
            self._next_look = now + min(_LOOK, float(self._after or 0) / 4)
        if self._stands_still(now, look=look, ended=ended):
            self.message = f"no rank here made a step for {self._after} s"
            if self._judged_by_output():
                self.message = f"no rank here printed anything for {self._silence:g} s"
            self._due = now + (0.0 if self._alone else self._announce())
        elif look and not self._alone and (told := self._told()) is not None:
            node, wait = told
            self.message = f"the ranks of node {node} stand still"
            self._due = now + wait

    def _stands_still(self, now: float, *, look: bool, ended: bool) -> bool:
        by_output = self._judged_by_output()
        if ended and (self._alone or not by_output):
            self._stood(now, moved=True)
            return False
        if by_output:
            return look and self._node == _READER and self._is_silent(now)
        last = _mtime(self._step_file)
        moved, self._seen = last != self._seen, last
        return self._stood(now, moved=moved or last is None) > float(self._after or 0)

    def _is_silent(self, now: float) -> bool:
        """Whether no rank of any node prints. Other nodes are asked once this one's are silent."""
        after = float(self._silence or 0)
        far = self._still > after / 2 and now >= self._next_far_look
        if far:
            self._next_far_look = now + after / _FAR_LOOKS
        moved = self._printing.grown(everywhere=far) or (far and not self._printing.begun)
        return self._stood(now, moved=moved) > after and far

    def _stood(self, now: float, *, moved: bool) -> float:
        """Seconds for which nothing has moved while this agent was awake."""
        gap = min(now - self._looked, _AWAKE, float(self._after or 0) / 2)
        self._looked = now
        self._still = 0.0 if moved else self._still + gap
        return self._still

    def _judged_by_output(self) -> bool:
        return self._silence is not None and _mtime(self._step_file) is None

    def _announce(self) -> float:
        """Tell the other nodes; seconds until all of them take their stacks."""
        given = give_notice(self._folder, self._node)
        told = None if given else self._told()
        return SETTLE if told is None else told[1]

    def _told(self) -> tuple[int, float] | None:
        """Which node gave notice, and in how many seconds the stacks are due by its clock."""
        notice = read_notice(self._folder)
        if notice is None or notice.given < self._begun - _STALE:
            return None
        return notice.node, min(max(0.0, notice.due - time.time()), SETTLE)


def _mtime(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
