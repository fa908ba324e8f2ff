"""What a rank holds of the model and the optimizer, said without the strategy's words."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from orchestrator.checkpoints.regions import Region, Span, region_of

MOST_WRITERS = 8
"""Of ranks that hold the same, how many share the writing: more would make small files."""
_WORTH_SHARING = 1 << 16


@dataclass(frozen=True)
class Piece:
    """A tensor of this rank, and which part of which whole tensor it is."""

    key: str
    """`model/NAME` for a parameter or buffer, `STATE/NAME` for its optimizer state."""
    shape: tuple[int, ...]
    """Of the whole tensor."""
    region: Region
    tensor: torch.Tensor
    """This rank's elements, in the region's order; writing into it changes what is trained."""
    copy: int = 0
    copies: int = 1
    """This is copy number `copy` of `copies` equal ones on as many ranks."""

    def share(self) -> tuple[int, int]:
        """Which of its elements, first and last but one, this rank writes: the copies share the
        work, so that each element is written once."""
        writers = min(self.copies, MOST_WRITERS)
        count = self.tensor.numel()
        if count < _WORTH_SHARING or not isinstance(self.region, Span):
            mine = zlib.crc32(self.key.encode()) % writers == self.copy
            return (0, count) if mine else (0, 0)
        if self.copy >= writers:
            return 0, 0
        return count * self.copy // writers, count * (self.copy + 1) // writers


def piece_of(key: str, tensor: torch.Tensor, *, copy: int, copies: int) -> Piece:
    """The piece that a parameter, buffer or optimizer state is.

    What is no DTensor is whole, and `copy` of `copies` ranks that all hold it; a DTensor knows.
    """
    if not isinstance(tensor, DTensor):
        local = tensor.detach()
        return Piece(key, tuple(local.shape), Span(0, local.numel()), local, copy, copies)
    mesh = tensor.device_mesh
    lengths, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, tensor.placements)
    copy, copies = 0, 1
    for dimension, placement in enumerate(tensor.placements):
        if isinstance(placement, Replicate):
            copy = copy * mesh.size(dimension) + mesh.get_local_rank(dimension)
            copies *= mesh.size(dimension)
    shape = tuple(tensor.shape)
    local = cast(DTensor, tensor.detach()).to_local()
    return Piece(key, shape, region_of(shape, offsets, lengths), local, copy, copies)


def torch_pieces(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, copy: int, copies: int
) -> Iterator[Piece]:
    """All that training changes: trained parameters, kept buffers, and the optimizer's tensors.

    Frozen parameters are those of the base that the run started from, and are not saved again.
    """
    for name, tensor in trained_tensors(model):
        yield piece_of(f"model/{name}", tensor, copy=copy, copies=copies)
        for state, value in optimizer.state.get(tensor, {}).items():
            if state != "step" and isinstance(value, torch.Tensor):
                yield piece_of(f"{state}/{name}", value, copy=copy, copies=copies)


def trained_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Trained parameters and persistent buffers by the names of the state dict; tied ones once."""
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
        if not frozen and id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def materialise_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimizer's state tensors, which it makes at its first step.

    That step changes nothing: gradients and learning rate are zero.
    """
    if optimizer.state:
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = torch.zeros_like(group["lr"]) if torch.is_tensor(group["lr"]) else 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def steps_taken(optimizer: torch.optim.Optimizer) -> int | None:
    """The step count that Adam corrects its averages by; None where the optimizer has none."""
    for state in optimizer.state.values():
        if "step" in state:
            return int(state["step"])
    return None


def set_steps_taken(optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Put that count back for every parameter."""
    for state in optimizer.state.values():
        if "step" in state:
            if torch.is_tensor(state["step"]):
                state["step"].fill_(steps)
            else:
                state["step"] = steps
