"""The hosts that a job avoids because its spec says so."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import Past
from orchestrator.agent.hosts import expand

_EXCLUDE = re.compile(r'^#SBATCH --exclude="?([^"\n]*)', re.MULTILINE)


def excluded_by_spec(past: Past, allocation: Allocation, script: Path) -> list[str] | None:
    """What the job avoids now, but for the hosts that it avoids since they failed. None where SLURM
    does not say."""
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
