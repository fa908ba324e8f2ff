"""How parameters, gradients and optimizer state are spread over the ranks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.base import Model, PositiveInt


class Parallel(Model):
    """Degrees beside data parallelism; the rest of the world size is data parallel."""

    tensor_parallel: PositiveInt = 1
    sequence_parallel: bool = False
    """Shard activations along the sequence between tensor-parallel regions."""
    pipeline_parallel: PositiveInt = 1


class Ddp(Parallel):
    """Every rank holds everything; gradients are averaged."""

    name: Literal["ddp"] = "ddp"


class Fsdp(Parallel):
    """PyTorch's fully_shard (FSDP2)."""

    name: Literal["fsdp"]
    sharding: Literal["full", "grad-op", "hybrid"] = "full"
    offload: bool = False
    """Keep sharded parameters, gradients and optimizer state in host memory."""


class Zero(Parallel):
    """DeepSpeed ZeRO (Rajbhandari et al. 2020)."""

    name: Literal["zero"]
    stage: Literal[1, 2, 3] = 2
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in host memory: nothing, optimizer state, or parameters too (stage 3)."""


Strategy = Annotated[Ddp | Fsdp | Zero, Field(discriminator="name")]
