"""How parameters, gradients and optimizer state are spread over the ranks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.base import Model, PositiveInt


class Parallel(Model):
    """Degrees beside data parallelism; the rest of the world size is data parallel."""

    tensor_parallel: PositiveInt = 1
    """Ranks that share each layer."""
    sequence_parallel: bool = False
    """Shard activations along the sequence between tensor-parallel regions."""
    pipeline_parallel: PositiveInt = 1
    """Groups of layers, each on ranks of its own."""


class Ddp(Parallel):
    """Every rank holds everything; gradients are averaged."""

    name: Literal["ddp"] = "ddp"
    """The strategy."""


class Fsdp(Parallel):
    """PyTorch's fully_shard (FSDP2)."""

    name: Literal["fsdp"]
    """The strategy."""
    sharding: Literal["full", "grad-op", "hybrid"] = "full"
    """full: everything is sharded; grad-op: parameters stay whole between forward and
    backward; hybrid: sharded within a node, copied between nodes."""
    offload: bool = False
    """Keep sharded parameters, gradients and optimizer state in host memory."""


class Zero(Parallel):
    """DeepSpeed ZeRO (Rajbhandari et al. 2020)."""

    name: Literal["zero"]
    """The strategy."""
    stage: Literal[1, 2, 3] = 2
    """1 shards optimizer state, 2 gradients too, 3 parameters too."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in host memory: nothing, optimizer state, or parameters too (stage 3)."""


Strategy = Annotated[Ddp | Fsdp | Zero, Field(discriminator="name")]
