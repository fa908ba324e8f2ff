"""Hosts that the next attempt is to do without, as far as the partition can spare them."""

from __future__ import annotations

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import Past, twice_failed


def to_avoid(past: Past, allocation: Allocation) -> list[str]:
    """Of the hosts that failed twice within a day all, or the latest where a job that avoids them
    all could start nowhere: it would wait for ever, and nobody would know."""
    bad = twice_failed(past.failures)
    usable = allocation.usable() if bad else None
    if usable is None:
        return bad
    others = usable - (set(allocation.excluded()) - set(past.blamed))
    size = len(allocation.nodes())
    while bad and len(others.difference(bad)) < size:
        bad.pop(0)
    return bad


def exclusion(past: Past, allocation: Allocation) -> list[str] | None:
    """The whole list for SLURM: what the spec excludes, and these. None where no host was ever to
    blame, so that nothing changes."""
    if not past.blamed:
        return None
    own = [host for host in allocation.excluded() if host not in past.blamed]
    return own + to_avoid(past, allocation)
