"""How a module that went through `fully_shard` really lies on the ranks, against the plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from orchestrator.training.errors import PlanMismatch
from orchestrator.training.layout import Layout

_BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
_CUT = {"shard": True, "replicate": False}
"""Whether parameters are cut along an axis of the data ranks."""


@dataclass(frozen=True)
class Sharding:
    """Read off a module's parameters."""

    groups: int
    """Parts of the model whose parameters travel together."""
    shard: int
    """Ranks over which each parameter is cut."""
    replicate: int
    """Such groups of ranks."""
    tensor: int
    """Ranks that share each layer."""

    def __str__(self) -> str:
        times = "time" if self.replicate == 1 else "times"
        spread = "uncut" if self.shard == 1 else f"cut over {self.shard} ranks"
        cut = f"{self.groups} groups {spread}, copied {self.replicate} {times}"
        return cut if self.tensor == 1 else f"{cut}, each layer over {self.tensor} ranks"


def sharding_of(module: nn.Module, layout: Layout) -> Sharding:
    """Raises PlanMismatch, naming the parameter, where one does not lie as `layout` says."""
    planned = {"replicate": layout.replicate, "shard": layout.shard}
    widest = Counter({"replicate": 1, "shard": 1, "tensor": 1})
    for name, parameter in module.named_parameters():
        sizes = axes_of(parameter, name)
        for axis, size in planned.items():
            if sizes.get(axis, 1) != size:
                raise PlanMismatch(
                    f"parameter {name} was planned on {size} ranks along {axis} and lies on "
                    f"{sizes.get(axis, 1)}"
                )
        widest |= Counter(sizes)
    if widest["tensor"] != layout.tensor:
        raise PlanMismatch(
            f"layers were planned over {layout.tensor} tensor-parallel ranks and lie on "
            f"{widest['tensor']}"
        )
    groups = sum(isinstance(part, FSDPModule) for part in module.modules())
    return Sharding(groups, widest["shard"], widest["replicate"], widest["tensor"])


def axes_of(parameter: torch.Tensor, name: str) -> dict[str, int]:
    """Real sizes of the process groups of the mesh axes on which `parameter` lies.

    Raises PlanMismatch where it is whole on every rank, or is not cut along the shard axis.
    """
    if not isinstance(parameter, DTensor):
        raise PlanMismatch(
            f"parameter {name} was planned to be cut over the ranks, and each holds all of it"
        )
    mesh = parameter.device_mesh
    names = mesh.mesh_dim_names or ()
    for axis, placement in zip(names, parameter.placements, strict=True):
        if axis in _CUT and placement.is_replicate() is _CUT[axis]:
            raise PlanMismatch(f"parameter {name} lies as {placement} along the axis {axis}")
    return {axis: mesh.get_group(axis).size() for axis in names}


def check_backend(device: torch.device, group: dist.ProcessGroup | None = None) -> None:
    """Raise PlanMismatch where tensors of `device` travel by other means than planned."""
    used = dict(
        pair.split(":") for pair in dist.get_backend_config(group).split(",") if ":" in pair
    )
    planned = _BACKENDS[device.type]
    if used.get(device.type) != planned:
        raise PlanMismatch(
            f"tensors on {device.type} were planned to travel through {planned}, and the process "
            f"group sends them through {used.get(device.type, 'nothing')}"
        )
