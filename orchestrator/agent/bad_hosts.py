"""Hosts that the next attempt is to do without, as far as the job can spare them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import Past, twice_failed


def to_avoid(past: Past, allocation: Allocation, script: Path) -> list[str]:
    """Of the hosts that failed twice within a day all, or the latest where a job that avoids them
    all could start nowhere: it would wait for ever, and nobody would know. None of them where SLURM
    does not say. `script` is what the job was made from."""
    bad = twice_failed(past.failures)
    own = _excluded(past, allocation) if bad else None
    if own is None:
        return []
    while bad and not (starts := allocation.could_start(str(script), [*own, *bad])):
        bad = [] if starts is None else bad[1:]
    return bad


def exclusion(past: Past, allocation: Allocation, script: Path) -> list[str] | None:
    """The whole list for SLURM: what the spec excludes, and these. None where no host was ever to
    blame, so that nothing changes, or where nobody knows what the spec excludes."""
    own = _excluded(past, allocation) if past.blamed else None
    return None if own is None else own + to_avoid(past, allocation, script)


def _excluded(past: Past, allocation: Allocation) -> list[str] | None:
    excluded = allocation.excluded()
    return None if excluded is None else [host for host in excluded if host not in past.blamed]
