"""What SLURM is told besides resources, and how this site wants to hear it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from orchestrator.spec.base import Model, Text

Option = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]


class Slurm(Model):
    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    nodelist: Text | None = None
    exclude: Text | None = None
    reservation: Text | None = None
    exclusive: bool = False
    """Whole nodes, shared with nobody."""
    gpu_flag: Literal["gres", "gpus-per-node", "gpus-per-task", "none"] = "gres"
    """How this site wants GPUs asked for; some refuse one form, some another."""
    gpu_type: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    """Type in the GPU request, as a100 in gpu:a100:4."""
    memory_flag: Literal["mem", "mem-per-cpu", "mem-per-gpu", "none"] = "mem"
    """How this site wants memory asked for; `none` where it refuses memory flags."""
    wckey: Text | None = None
    """Never sent unless given: many sites refuse an unknown one."""
    signal_before: int = 120
    """Seconds before the time limit at which SLURM sends SIGUSR2 (it may come 60 s early)."""
    options: dict[Option, Text | int | bool] = {}
    """More sbatch options by long name: {mail-type: END, requeue: true}. true is a bare flag."""
