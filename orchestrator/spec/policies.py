"""Rendezvous, restart, checkpoint and logging settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from orchestrator.spec.base import Model, NonNegativeInt, PositiveInt
from orchestrator.spec.quantities import Duration

Interface = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:=^,-]{1,64}$")]


class Rendezvous(Model):
    """How the ranks find each other."""

    backend: Literal["c10d", "static"] = "c10d"
    """torchrun's backend; accelerate hands it on, deepspeed has its own."""
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Default: derived from the job id outside the ephemeral range; on one local node, a free
    one. 0 asks for a free one and is refused on several nodes, where each would pick another."""
    timeout: Duration = "10m"
    """How long ranks wait for each other at start."""
    interface: Interface | None = None
    """Network interface for NCCL and gloo, as ib0; its address is the one the others are told."""


class Restart(Model):
    max: NonNegativeInt = 0
    """Restarts after failures that count; preemption and node failure do not."""
    on: list[Literal["preempted", "time-limit", "node-failure", "failed"]] = [
        "preempted",
        "time-limit",
        "node-failure",
    ]
    backoff: Duration = "30s"


class Checkpoint(Model):
    every_steps: PositiveInt | None = None
    every_minutes: PositiveInt | None = None
    at_end: bool = False
    on_signal: bool = False
    keep_last: PositiveInt = 2
    keep_every: PositiveInt | None = None
    """Keep for good every checkpoint whose step is a multiple of this."""
    best: str | None = None
    """Name of a metric (lower is better); its best checkpoint is kept too."""
    asynchronous: bool = True
    resume: Literal["auto", "never"] = "auto"


class Logging(Model):
    every_steps: PositiveInt = 10
    """Steps between two metrics records and progress lines."""
    tensorboard: bool = False
    wandb: bool = False
    rotate: str | None = None
    """Start a new log file of a rank at this size, as "1GB"."""
