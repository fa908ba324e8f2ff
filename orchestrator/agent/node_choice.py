"""Which of a SLURM job's nodes an attempt gets."""

from __future__ import annotations

from pathlib import Path

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.bad_hosts import to_avoid
from orchestrator.agent.classes import Past


def choose(
    allocation: Allocation, wanted: int, past: Past, script: Path, *, again: bool
) -> tuple[list[str], str]:
    """So many of them, in SLURM's order, and why there are too few; "" where there are enough.

    `script` made the job. A first attempt without spares is not worth asking SLURM for: `again`.
    """
    nodes = allocation.nodes()
    bad = set(to_avoid(past, allocation, script)) & set(nodes)
    dead = allocation.down(nodes) if again or len(nodes) > wanted else set()
    good = [name for name in nodes if name not in bad | dead]
    if len(good) < wanted:
        return nodes[:wanted], f"{', '.join(sorted(bad | dead))} failed before or is down"
    # A run on one node has a second machine to look after it where there is one to spare.
    last_choice = {allocation.name} if wanted == 1 else set()
    best = sorted(good, key=lambda name: (past.failures.get(name, 0), name in last_choice))[:wanted]
    return [name for name in nodes if name in best], ""
