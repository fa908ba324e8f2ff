"""Hosts that the next attempt is to do without, as far as the job can spare them."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import Past, twice_failed
from orchestrator.agent.hosts import expand

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
    while bad and not (starts := allocation.could_start(str(script), [*own, *bad])):
        bad = [] if starts is None else bad[1:]
    return bad


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
