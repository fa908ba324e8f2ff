"""Hosts that the next attempt is to do without, as far as the job can spare them."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import Past, twice_failed
from orchestrator.agent.hosts import expand
from orchestrator.agent.stderr import tell

_EXCLUDE = re.compile(r'^#SBATCH --exclude="?([^"\n]*)', re.MULTILINE)


def to_avoid(past: Past, allocation: Allocation, script: Path) -> list[str]:
    """Of the hosts that failed twice within a day all, or the latest where a job that avoids them
    all could start nowhere: it would wait for ever, and nobody would know. None of them where SLURM
    does not say. `script` is what the job was made from."""
    bad = twice_failed(past.failures)
    own = _excluded(past, allocation, script) if bad else None
    if own is None:
        return []
    bad = [host for host in bad if host not in own]
    refused = allocation.refusal(str(script), [*own, *bad]) if bad else ""
    if refused:
        anyway = allocation.refusal(str(script), own)
        if anyway:
            return _as_others_suffice(bad, own, allocation, anyway)
        refused = refused if anyway == "" else None
    while bad and refused:
        bad = bad[1:]
        refused = allocation.refusal(str(script), [*own, *bad]) if bad else ""
    return [] if refused is None else bad


def _as_others_suffice(
    bad: list[str], own: Collection[str], allocation: Allocation, refused: str
) -> list[str]:
    """Where SLURM would take no such job whatever it avoids, as from a node that may submit none,
    or from a person who has submitted as many as they may: its no tells nothing of these hosts. The
    job itself is in the queue all the same, and can do without them where as many others as it has
    nodes are there."""
    avoid, others = bad, allocation.alike().difference(own)
    wanted = max(1, len(allocation.nodes()))
    while avoid and len(others.difference(avoid)) < wanted:
        avoid = avoid[1:]
    kept = f"it is kept away from {', '.join(avoid)}: other nodes of the same build are enough"
    free = f"it may run on {', '.join(bad)} again: nobody knows of enough other nodes"
    tell(
        f"SLURM does not say where this job could start, since it takes none like it ({refused}); "
        f"{kept if avoid else free}"
    )
    return avoid


def exclusion(past: Past, allocation: Allocation, script: Path) -> list[str] | None:
    """The whole list for SLURM: what the spec excludes, and these. None where no host was ever to
    blame, so that nothing changes, or where nobody knows what the spec excludes."""
    own = _excluded(past, allocation, script) if past.blamed else None
    return None if own is None else own + to_avoid(past, allocation, script)


def _excluded(past: Past, allocation: Allocation, script: Path) -> list[str] | None:
    """What the job avoids now, but for the hosts that it avoids since they failed."""
    excluded = allocation.excluded()
    if excluded is None:
        return None
    named = _named(script)
    return [host for host in excluded if host not in past.blamed or named is None or host in named]


def _named(script: Path) -> Collection[str] | None:
    """The hosts that the spec excludes, as the script of the job has them: those stay excluded.
    None where it cannot be read, or names a file of hosts; then no host is let in again."""
    try:
        found = _EXCLUDE.search(script.read_text("utf-8", "replace"))
        names = found[1] if found else ""
        return None if "/" in names else [host.strip() for host in expand(names)]
    except (OSError, ValueError):
        return None
