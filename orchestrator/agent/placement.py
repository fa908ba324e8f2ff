"""Where the next attempt of a run can really be. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.agent.allocation import time_left
from orchestrator.agent.classes import Verdict


def place(verdict: Verdict, facts: Mapping[str, str], *, ending: bool, needed: float) -> Verdict:
    """The verdict with its retry where that is possible. `facts` are SLURM's on the job, `ending`
    that it ends the job and does not bring it back, `needed` the seconds that an attempt in this
    allocation must still have."""
    if not verdict.retry:
        return verdict
    if ending:
        return _replaced(verdict, facts)
    where = verdict.where
    left = time_left(facts)
    if where == "allocation" and left is not None and left <= needed:
        where = "requeue"
    if where == "requeue" and facts.get("Requeue") == "0":
        where = "new-job"
    return verdict._replace(where=where)


def _replaced(verdict: Verdict, facts: Mapping[str, str]) -> Verdict:
    """By a new job. Not one that somebody has cancelled after the warning before its time limit."""
    left = time_left(facts)
    if verdict.name == "time-limit" and (left is None or left > 1):
        return verdict._replace(retry=False, counted=False, where=None)
    return verdict._replace(where="new-job")


def revoked(verdict: Verdict) -> Verdict:
    """Of a run that somebody has cancelled before its next attempt."""
    if not verdict.retry:
        return verdict
    message = f"it was cancelled; before that, {verdict.message}"
    return verdict._replace(
        name="cancelled", message=message, retry=False, counted=False, where=None
    )
