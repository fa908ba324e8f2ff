"""Whether the ranks of a node held about all the host memory that they may use."""

from __future__ import annotations

import os
import re

from orchestrator.runs.bundles import current_bundle
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import host_name
from orchestrator.runs.reading import read_bytes

NEARLY = 0.8
"""Of the limit: a rank that is killed while it asks for more has not got it yet."""
_MEMORY = re.compile(r"^#SBATCH --mem=(\d+)([KMGT]?)\b", re.MULTILINE)
_SCRIPT_BYTES = 1 << 20
_UNITS = {"K": 1 << 10, "": 1 << 20, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
"""SLURM's sbatch: megabytes where no unit is written."""


def limit(layout: RunLayout, host: str) -> int | None:
    """Bytes of a node: what the job asked for, else what this machine has if that is the node."""
    try:
        found = _MEMORY.search(
            read_bytes(current_bundle(layout) / "job.sbatch", _SCRIPT_BYTES).decode()
        )
    except (OSError, UnicodeDecodeError):
        found = None
    if found is not None:
        return int(found[1]) * _UNITS[found[2]]
    if host != host_name():
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def nearly_full(layout: RunLayout, host: str, held: int) -> bool:
    """`held`: bytes that the node's ranks had at their peaks, together."""
    most = limit(layout, host)
    return most is not None and held >= NEARLY * most
