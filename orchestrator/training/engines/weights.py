"""Rank 0's weights onto all ranks, each of which keeps its part."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from orchestrator.training.errors import PlanMismatch
from orchestrator.training.process_group import Rank

_META = torch.device("meta")


def take_weights(module: nn.Module, rank: Rank) -> dict[str, torch.Tensor]:
    """Leave nothing of `module` but shapes (the meta device), in place; tied stays tied.

    Returns what parameters and buffers held, by name, the non-persistent ones (rotary tables)
    too; {} on ranks other than 0, whose values nobody wants. All ranks call it together.
    Raises PlanMismatch on every rank where they have built different models.
    """
    taken: dict[str, torch.Tensor] = {}

    def take(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if rank.is_main:
            taken[name] = tensor.detach()
        return _like(tensor, tensor.detach().to(_META))

    _check_same(module)
    _exchange(module, take)
    return taken


def spread_weights(
    module: nn.Module,
    whole: dict[str, torch.Tensor],
    device: torch.device,
    *,
    host: bool = False,
) -> None:
    """Fill a module on the meta device, cut or not, with what `take_weights` gave; empties `whole`.

    A rank holds one tensor in full at a time, on `device`, beside its parts of the others, which
    go to `device` or, with `host`, to the CPU. All ranks call it together.
    """

    def fill(name: str, empty: torch.Tensor) -> torch.Tensor:
        found = whole.pop(name, None)
        full = (
            torch.empty(empty.shape, dtype=empty.dtype, device=device)
            if found is None
            else found.to(device).contiguous()
        )
        dist.broadcast(full, src=0)
        if not isinstance(empty, DTensor):
            return _like(empty, full)
        part = distribute_tensor(full, empty.device_mesh, empty.placements, src_data_rank=None)
        return _like(empty, part.cpu() if host else part)

    _exchange(module, fill)


def _exchange(module: nn.Module, made: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Put `made(name, tensor)` in the place of each parameter and buffer.

    nn.Module's own `to` and `to_empty` make two parameters of a tied one.
    """
    done: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # keeps the old: ids are not reused
    for prefix, owner in module.named_modules():
        for table in (owner._parameters, owner._buffers):
            for key, old in table.items():
                if old is None:
                    continue
                if id(old) not in done:
                    done[id(old)] = old, made(f"{prefix}.{key}" if prefix else key, old)
                table[key] = done[id(old)][1]


def _like(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _check_same(module: nn.Module) -> None:
    """A rank with another shape in mind would wait in a broadcast for ever, or read garbage."""
    text = "\n".join(
        f"{name} {tuple(tensor.shape)} {tensor.dtype} {tensor.requires_grad}"
        for tensors in (module.named_parameters(), module.named_buffers())
        for name, tensor in tensors
    )
    digest = zlib.crc32(text.encode())
    extremes = torch.tensor([digest, -digest])
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    largest, smallest = extremes[0].item(), -extremes[1].item()
    if largest != smallest:
        raise PlanMismatch(
            "the ranks have built different models: their parameters or buffers differ in names, "
            "shapes, number formats or in which are trained",
            hint="give every rank the same model files, arguments and version of the libraries",
        )
