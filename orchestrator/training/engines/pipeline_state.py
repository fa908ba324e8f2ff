"""A model's tensors from rank 0 to the stages that hold them, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from orchestrator.training.layout import Layout
from orchestrator.training.objective import Objective

Tensors = dict[str, torch.Tensor]


class UncutModel:
    """Names and shapes of a model before stages are cut out of it."""

    def __init__(self, objective: Objective) -> None:
        self._parts = _unique(
            [
                *objective.named_parameters(remove_duplicate=False),
                *objective.named_buffers(remove_duplicate=False),
            ]
        )
        self._state = _unique(list(objective.model.state_dict(keep_vars=True).items()))

    def first_name(self, name: str) -> str:
        """Of a tensor in the state dict: the first of its names, which another stage may hold."""
        return self._state[name][0]

    def spread(self, objective: nn.Module, whole: Tensors, device: torch.device) -> None:
        """Fill what is left of the objective, which is on the meta device, from rank 0.

        `whole` is what `take_weights` gave, and is emptied. A rank holds one tensor in full at a
        time. All ranks of all stages call it together.
        """
        places = {self._parts[name][0]: (table, key) for name, table, key in _places(objective)}
        for name, (first, like) in self._parts.items():
            if name != first:
                continue
            found = whole.pop(name, None)
            full = torch.empty_like(like, device=device) if found is None else found.to(device)
            full = full.contiguous()
            dist.broadcast(full, src=0)
            if name in places:
                table, key = places[name]
                table[key] = _filled(table[key], full)

    def gather(
        self,
        model: nn.Module,
        layout: Layout,
        stages: dist.ProcessGroup,
        wanted: Callable[[str], bool],
        whole: Callable[[torch.Tensor], torch.Tensor],
    ) -> Tensors:
        """The uncut model's state dict on the CPU of rank 0, and {} elsewhere.

        `stages` joins the ranks that differ in their stage alone; `whole` gives the full tensor
        of which a stage's ranks hold parts. One tensor travels at a time; tied ones travel once.
        """
        mine = model.state_dict()
        held: list[set[str]] = [set() for _ in range(layout.pipeline)]
        dist.all_gather_object(held, set(mine), group=stages)
        stage, *others = layout.coordinates
        asked = {name: first for name, (first, _) in self._state.items() if wanted(name)}
        found: Tensors = {}
        for name in dict.fromkeys(asked.values()):
            source = next(number for number, names in enumerate(held) if name in names)
            tensor = whole(mine[name]) if source == stage else None
            if any(others):
                continue
            if stage == 0:
                if tensor is None:
                    like, device = self._state[name][1], next(iter(mine.values())).device
                    tensor = torch.empty_like(like, device=device)
                    dist.recv(tensor, group=stages, group_src=source)
                found[name] = tensor.to("cpu", copy=True)
            elif tensor is not None:
                dist.send(tensor.contiguous(), group=stages, group_dst=0)
        return {name: found[first] for name, first in asked.items() if first in found}


def _unique(named: list[tuple[str, torch.Tensor]]) -> dict[str, tuple[str, torch.Tensor]]:
    """By name: the first name of the same tensor, and the tensor without its data."""
    first: dict[int, str] = {}
    return {
        name: (first.setdefault(id(tensor), name), tensor.detach().to("meta"))
        for name, tensor in named
    }


def _places(module: nn.Module) -> Iterator[tuple[str, Tensors, str]]:
    """Of each parameter and buffer: its name, the table that its module keeps it in, the key."""
    for prefix, owner in module.named_modules():
        for table in (owner._parameters, owner._buffers):
            for key, tensor in table.items():
                if tensor is not None:
                    yield f"{prefix}.{key}" if prefix else key, table, key


def _filled(empty: torch.Tensor, full: torch.Tensor) -> torch.Tensor:
    part: torch.Tensor = full
    if isinstance(empty, DTensor):
        part = distribute_tensor(full, empty.device_mesh, empty.placements, src_data_rank=None)
    return nn.Parameter(part, empty.requires_grad) if isinstance(empty, nn.Parameter) else part
