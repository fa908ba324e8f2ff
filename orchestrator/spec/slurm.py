"""What SLURM is told besides resources, and how this site wants to hear it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.base import Model, Text, matching

_OPTION = r"[a-z][a-z0-9-]+"
Option = Annotated[
    str,
    matching(
        _OPTION,
        "is not a long sbatch option",
        "write its long name without the dashes, as mail-type",
    ),
    Field(json_schema_extra={"pattern": f"^{_OPTION}$"}),
]
_GPU_TYPE = r"[A-Za-z0-9_.-]+"
GpuType = Annotated[
    str,
    matching(_GPU_TYPE, "cannot be a GPU type", "write it as SLURM knows it, as a100 or h100"),
    Field(json_schema_extra={"pattern": f"^{_GPU_TYPE}$"}),
]


class Slurm(Model):
    partition: Text | None = None
    """Partition (queue), as sinfo shows them."""
    account: Text | None = None
    """Account that is charged."""
    qos: Text | None = None
    """Quality of service."""
    constraint: Text | None = None
    """Node features, as "a100&ib"."""
    nodelist: Text | None = None
    """Nodes that must be among the run's."""
    exclude: Text | None = None
    """Nodes that must not be."""
    reservation: Text | None = None
    """Reservation to run in."""
    exclusive: bool = False
    """Whole nodes, shared with nobody."""
    gpu_flag: Literal["gres", "gpus-per-node", "gpus-per-task", "none"] = "gres"
    """How this site wants GPUs asked for; some refuse one form, some another."""
    gpu_type: GpuType | None = None
    """Type in the GPU request, as a100 in gpu:a100:4."""
    memory_flag: Literal["mem", "mem-per-cpu", "mem-per-gpu", "none"] = "mem"
    """How this site wants memory asked for; `none` where it refuses memory flags."""
    wckey: Text | None = None
    """Never sent unless given: many sites refuse an unknown one."""
    signal_before: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Seconds before the time limit at which SLURM sends SIGUSR2 (it may come 60 s early).
    Default: 120, or half of a limit under four minutes."""
    options: dict[Option, Text | int | bool] = {}
    """More sbatch options by long name: {mail-type: END, requeue: true}. true is a bare flag."""
