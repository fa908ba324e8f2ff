"""What a run asks of the machines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.base import Model, NonNegativeInt
from orchestrator.spec.quantities import Duration, Size


class Resources(Model):
    nodes: Annotated[int, Field(ge=1, le=65536)] = 1
    """Number of nodes."""
    gpus_per_node: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = "auto"
    """GPUs, and so ranks, on each node. `auto` takes this machine's visible GPUs (local only);
    0 trains on CPU."""
    procs_per_node: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Ranks on each node when there are no GPUs (with GPUs it is one rank a GPU). Default: 1."""
    cpus_per_task: Annotated[int, Field(ge=1, le=65536)] | None = None
    """CPU cores of one node's task, shared by all ranks there (SLURM's --cpus-per-task: ptx
    starts one task a node)."""
    memory: Size | None = None
    """Host memory of each node, as "64GB"."""
    time_limit: Duration | None = None
    """Wall time, in quotes: "12:30:00", "90m", "2d"."""
    spare_nodes: NonNegativeInt = 0
    """Nodes kept in reserve for one that dies."""
