"""The agent that stands in for the job's supervisor when that is gone (see lifeline.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.events import Events
from orchestrator.agent.lifeline import connect
from orchestrator.agent.place import Place
from orchestrator.agent.stderr import tell


class Deputy:
    """On the last node of several it has a lifeline; everywhere else it does nothing."""

    def __init__(self, place: Place, plan: Mapping[str, Any], events: Events) -> None:
        self._attempt = place.attempt
        self._events = events
        self._wanted = "node-failure" in (plan.get("restart") or {}).get("on", ())
        self._lifeline = connect(os.environ, place.node_rank, int(plan.get("nodes") or 1))

    def look(self) -> None:
        """Now and then; never waits while the supervisor lives."""
        if self._lifeline is not None and self._lifeline.lost():
            self._requeue()

    def say_farewell(self) -> None:
        """At the end: a supervisor that does not answer has died with its ranks, before ours."""
        if self._lifeline is not None and not self._lifeline.farewell():
            self._requeue()

    def _requeue(self) -> None:
        """Not where SLURM is ending the job: it was cancelled then, or comes back by itself."""
        self._lifeline = None
        job = Allocation(os.environ)
        if not self._wanted or job.facts().get("JobState") != "RUNNING":
            return
        why = f"the supervisor on {os.environ.get('PTX_BATCH_HOST')} is gone"
        self._events.append("requeue", attempt=self._attempt, reason=why)
        if refused := job.requeue():
            tell(f"{why}, and SLURM does not requeue the job: {refused}")
