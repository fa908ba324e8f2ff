"""The agent that stands in for the job's supervisor when that is gone (see lifeline.py)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.clients import cancelled
from orchestrator.agent.events import Events
from orchestrator.agent.lifeline import connect
from orchestrator.agent.place import Place
from orchestrator.agent.stderr import tell

_PATIENCE = 20.0
"""Seconds without a supervisor after which it is gone for good: the batch script starts a new one
within two."""
_BETWEEN = 2.0
"""Seconds between two questions to SLURM."""
_INSISTS = 1800.0
"""Seconds for which it asks again where SLURM does not answer: without it the run is lost."""


class Deputy:
    """On the last node it has a lifeline; everywhere else it does nothing."""

    def __init__(self, place: Place, plan: Mapping[str, Any], events: Events) -> None:
        self._attempt = place.attempt
        self._run_dir = Path(str(plan["run_dir"]))
        self._events = events
        self._wanted = "node-failure" in (plan.get("restart") or {}).get("on", ())
        self._lifeline = connect(os.environ, place.node_rank, int(plan.get("nodes") or 1))
        self._asked_at = 0.0
        self._told = False

    def look(self) -> None:
        """Now and then; never waits while the supervisor lives."""
        if self._lifeline is None or not (alone_for := self._lifeline.torn()):
            return
        if time.monotonic() < self._asked_at + _BETWEEN:
            return
        job = Allocation(os.environ)
        facts = job.facts()
        self._asked_at = time.monotonic()
        state = facts.get("JobState", "RUNNING")
        if state == "RUNNING" and alone_for < _PATIENCE:
            return
        # Not where SLURM is ending the job: it was cancelled then, or comes back by itself.
        wanted = self._wanted and (state == "RUNNING" or _was_killed(facts))
        with contextlib.suppress(OSError):
            wanted = wanted and not cancelled(self._run_dir)
        if not wanted or self._requeue(job) or alone_for > _INSISTS:
            self._lifeline = None

    def say_farewell(self) -> None:
        """At the end: a supervisor that does not answer has died with its ranks, before ours."""
        while self._lifeline is not None and not self._lifeline.farewell():
            self.look()
            time.sleep(0.2)

    def _requeue(self, job: Allocation) -> bool:
        """Whether that is settled: SLURM has done it, or has refused and does answer."""
        why = f"the supervisor on {os.environ.get('PTX_BATCH_HOST')} is gone"
        if not self._told:
            self._told = True
            self._events.append("requeue", attempt=self._attempt, reason=why)
        refused = job.requeue()
        if refused:
            tell(f"{why}, and SLURM does not requeue the job: {refused}")
        return refused is not None


def _was_killed(facts: Mapping[str, str]) -> bool:
    """Whether the job is over because somebody else than SLURM killed its batch script. What SLURM
    itself ends has another reason, also where it takes SIGKILL for that."""
    why = facts.get("Reason", "")
    return facts.get("ExitCode") == "0:9" and why.startswith(("JobLaunchFailure", "RaisedSignal"))
