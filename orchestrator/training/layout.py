"""Which ranks share a model, and which share the data: the degrees of parallelism as a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.training.errors import PlanMismatch

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from orchestrator.training.plan import TrainingPlan

AXES = ("pipeline", "replicate", "shard", "tensor")
"""From the slowest network to the fastest: neighbours in rank, on one node, share tensors."""


@dataclass(frozen=True)
class Layout:
    """The world as a grid of pipeline x replicate x shard x tensor ranks, in that order.

    `replicate` x `shard` ranks see different data; `shard` of them cut parameters among
    themselves (FSDP, ZeRO), `replicate` hold copies (DDP, hybrid sharding).
    """

    pipeline: int
    replicate: int
    shard: int
    tensor: int
    rank: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.pipeline, self.replicate, self.shard, self.tensor

    @property
    def coordinates(self) -> tuple[int, int, int, int]:
        """Of this rank on the four axes."""
        rest, tensor = divmod(self.rank, self.tensor)
        rest, shard = divmod(rest, self.shard)
        pipeline, replicate = divmod(rest, self.replicate)
        return pipeline, replicate, shard, tensor

    @property
    def data_size(self) -> int:
        """Ranks (or groups of them) that take different samples."""
        return self.replicate * self.shard

    @property
    def data_rank(self) -> int:
        """Which of the `data_size` shares of a batch this rank takes."""
        _, replicate, shard, _ = self.coordinates
        return replicate * self.shard + shard

    @property
    def owns_loss(self) -> bool:
        """Whether this rank reports its group's loss: the last stage's first tensor rank."""
        pipeline, _, _, tensor = self.coordinates
        return pipeline == self.pipeline - 1 and tensor == 0

    def device_mesh(self, device_type: str) -> DeviceMesh:
        """The grid as PyTorch's DeviceMesh with the dimensions AXES; all ranks call it together."""
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(device_type, self.sizes, mesh_dim_names=AXES)


def layout_of(plan: TrainingPlan, rank: int) -> Layout:
    """The grid that the plan's strategy asks for.

    Hybrid sharding cuts parameters over the data ranks of one node and copies them between
    nodes. Raises PlanMismatch where the world size does not divide.
    """
    strategy = plan.strategy
    tensor, pipeline = strategy.tensor_parallel, strategy.pipeline_parallel
    data, rest = divmod(plan.world_size, tensor * pipeline)
    if rest:
        raise PlanMismatch(
            f"{plan.world_size} ranks cannot be split into groups of tensor_parallel {tensor} x "
            f"pipeline_parallel {pipeline}",
            hint="choose nodes and ranks so that their product divides",
        )
    replicate, shard = data, 1
    if strategy.name == "zero":
        replicate, shard = 1, data
    elif strategy.name == "fsdp":
        shard = data
        if strategy.sharding == "hybrid":
            shard = max(1, plan.procs_per_node // tensor)
        replicate, rest = divmod(data, shard)
        if rest:
            raise PlanMismatch(
                f"hybrid sharding cuts over the {shard} data-parallel ranks of a node, which do "
                f"not divide {data}",
                hint="use `sharding: full`, or whole nodes",
            )
    return Layout(pipeline, replicate, shard, tensor, rank)
