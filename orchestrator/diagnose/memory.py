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


def asked_for(layout: RunLayout) -> int | None:
    """Bytes of each node, as the job's script says."""
    try:
        script = read_bytes(current_bundle(layout) / "job.sbatch", _SCRIPT_BYTES)
        found = _MEMORY.search(script.decode())
    except (OSError, UnicodeDecodeError):
        return None
    return None if found is None else int(found[1]) * _UNITS[found[2]]


def nearly_full(asked: int | None, host: str, held: int) -> bool:
    """`asked`: what the job asked for; where nobody knows, this machine has what it has. `held`:
    bytes that the node's ranks had at their peaks, together."""
    if asked is None and host == host_name():
        asked = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return asked is not None and held >= NEARLY * asked
