"""What a rank holds of the model and the optimizer, said without the strategy's words."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
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
MODEL = "model"
"""Kind of a parameter or buffer; other kinds are states of the optimizer."""
_OWN = "rank/"
"""Prefix of keys of what a rank alone holds, beside what all of them make up."""


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
    """Copies 0 to `copies` - 1 of these elements, each on a rank of its own, are equal and share
    the writing. A rank whose `copy` is none of them has its like written by those, and is filled
    as they are."""
    trained: bool = False
    """Of a parameter itself, and neither of a buffer nor of the optimizer's state."""

    @property
    def name(self) -> str:
        """Of the parameter or buffer that it belongs to."""
        return neutral_key(self.key).partition("/")[2]

    def share(self) -> tuple[int, int]:
        """Which of its elements, first and last but one, this rank writes: the copies share the
        work, so that each element is written once."""
        writers = min(self.copies, MOST_WRITERS)
        # Spread over the copies, and so over nodes, whose networks they then share too.
        number = -(-self.copy * writers // self.copies)
        if self.copy >= self.copies or number * self.copies // writers != self.copy:
            return 0, 0
        count = self.tensor.numel()
        if count < _WORTH_SHARING or not isinstance(self.region, Span):
            mine = zlib.crc32(self.key.encode()) % writers == number
            return (0, count) if mine else (0, 0)
        return count * number // writers, count * (number + 1) // writers


def own_key(key: str, rank: int) -> str:
    """The key for a rank's own values of what has another value on other ranks (local SGD)."""
    return f"{_OWN}{rank}/{key}"


def neutral_key(key: str) -> str:
    """The key without such a rank."""
    return key.split("/", 2)[2] if is_own(key) else key


def is_own(key: str) -> bool:
    """Whether it is a key of `own_key`, which only as many ranks of the same kind read."""
    return key.startswith(_OWN)


def kind_of(key: str) -> str:
    """`MODEL`, or the optimizer's name for a state."""
    return neutral_key(key).partition("/")[0]


def words(key: str) -> str:
    """A key in a sentence."""
    kind, name = kind_of(key), neutral_key(key).partition("/")[2]
    return name if kind == MODEL else f"{kind} of {name}"


def piece_of(
    key: str, tensor: torch.Tensor, *, copy: int, copies: int, trained: bool = False
) -> Piece:
    """The piece that a parameter, buffer or optimizer state is.

    What is no DTensor is whole, and `copy` of `copies` ranks that all hold it; a DTensor knows.
    """
    if not isinstance(tensor, DTensor):
        local = tensor.detach()
        whole = Span(0, local.numel())
        return Piece(key, tuple(local.shape), whole, local, copy, copies, trained)
    if any(placement.is_partial() for placement in tensor.placements):
        raise ValueError(f"{key} is a partial sum on each rank")
    mesh = tensor.device_mesh
    lengths, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, tensor.placements)
    copy, copies = 0, 1
    for dimension, placement in enumerate(tensor.placements):
        if isinstance(placement, Replicate):
            copy = copy * mesh.size(dimension) + mesh.get_local_rank(dimension)
            copies *= mesh.size(dimension)
    shape = tuple(tensor.shape)
    local = cast(DTensor, tensor.detach()).to_local()
    region = region_of(shape, offsets, lengths)
    return Piece(key, shape, region, local, copy, copies, trained)


def torch_pieces(
    named: Iterable[tuple[str, torch.Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    copy: int,
    copies: int,
) -> Iterator[Piece]:
    """All that training changes: `named`, as `trained_tensors` gives it, and the optimizer's
    tensors for it.

    Frozen parameters are those of the base that the run started from, and are not saved again.
    Ranks see different samples, and their buffers (statistics over batches) differ: copy 0's count.
    """
    for name, tensor in named:
        trained = isinstance(tensor, nn.Parameter)
        writers = copies if trained else 1
        yield piece_of(f"{MODEL}/{name}", tensor, copy=copy, copies=writers, trained=trained)
        for state, value in optimizer.state.get(tensor, {}).items():
            if state != "step" and isinstance(value, torch.Tensor):
                yield piece_of(f"{state}/{name}", value, copy=copy, copies=copies)


def trained_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Trained parameters and persistent buffers by the names of the state dict; tied ones once.

    What else a module puts into its state dict (how a quantised base is scaled, say) is not
    trained.
    """
    named = model.state_dict(keep_vars=True)  # before others: FSDP now frees what it has gathered
    kept = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    kept |= {id(buffer) for buffer in model.buffers()}
    for name, tensor in named.items():
        if id(tensor) in kept:
            kept.remove(id(tensor))
            yield name, tensor
