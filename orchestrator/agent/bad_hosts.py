"""Hosts that the next attempt is to do without, as far as the job can spare them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import Past, twice_failed
from orchestrator.agent.own_exclusion import excluded_by_spec
from orchestrator.agent.stderr import tell


class _SlurmIsSilent(Exception):
    """It does not say whether a job could start."""


def to_avoid(past: Past, allocation: Allocation, script: Path) -> list[str]:
    """Of the hosts that failed twice within a day all, or the latest where a job that avoids them
    all could start nowhere: it would wait for ever, and nobody would know. None of them where SLURM
    does not say. `script` is what the job was made from."""
    bad = twice_failed(past.failures)
    own = excluded_by_spec(past, allocation, script) if bad else None
    if own is None:
        return []
    try:
        return _spared([host for host in bad if host not in own], own, allocation, script)
    except _SlurmIsSilent:
        return []


def exclusion(past: Past, allocation: Allocation, script: Path) -> list[str] | None:
    """The whole list for SLURM: what the spec excludes, and these. None where no host was ever to
    blame, so that nothing changes, or where nobody knows what the spec excludes."""
    own = excluded_by_spec(past, allocation, script) if past.blamed else None
    return None if own is None else own + to_avoid(past, allocation, script)


def _spared(bad: list[str], own: list[str], allocation: Allocation, script: Path) -> list[str]:
    """Those of `bad` that a job which avoids `own` too can do without."""

    def refusal(avoid: list[str]) -> str:
        said = allocation.refusal(str(script), [*own, *avoid])
        if said is None:
            raise _SlurmIsSilent
        return said

    if not bad or not refusal(bad):
        return bad
    if whatever := refusal([]):
        return _as_others_suffice(bad, own, allocation, whatever)
    return _latest(bad[1:], lambda avoid: not refusal(avoid))


def _latest(bad: list[str], spared: Callable[[list[str]], bool]) -> list[str]:
    """As many as can be spared, without those that failed longest ago."""
    while bad and not spared(bad):
        bad = bad[1:]
    return bad


def _as_others_suffice(
    bad: list[str], own: Collection[str], allocation: Allocation, refused: str
) -> list[str]:
    """Where SLURM would take no such job whatever it avoids, as from a node that may submit none,
    or from a person who has submitted as many as they may: its no tells nothing of these hosts. The
    job itself is in the queue all the same, and can do without them where as many others as it has
    nodes are there."""
    others, wanted = allocation.alike().difference(own), max(1, len(allocation.nodes()))
    avoid = _latest(bad, lambda hosts: len(others.difference(hosts)) >= wanted)
    kept = f"it is kept away from {', '.join(avoid)}: other nodes of the same build are enough"
    free = f"it may run on {', '.join(bad)} again: nobody knows of enough other nodes"
    tell(
        f"SLURM does not say where this job could start, since it takes none like it ({refused}); "
        f"{kept if avoid else free}"
    )
    return avoid
