"""Means over the ranks of tensors that differ between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn

from orchestrator.training.checkpoint.pieces import MOST_WRITERS, Piece
from orchestrator.training.process_group import Rank

BUCKET_BYTES = 64 << 20


def average_in_place(tensors: Sequence[torch.Tensor], world_size: int) -> None:
    """Replace the tensors by their mean over all ranks."""
    flat = _flat(tensors)
    dist.all_reduce(flat)
    for tensor, mean in _cut(flat / world_size, tensors):
        tensor.copy_(mean)


def means(pieces: Sequence[Piece], rank: Rank) -> list[Piece]:
    """Of whole tensors the means over all ranks, on the CPUs of those ranks that write them.

    The pieces' own tensors stay what they are. All ranks call it together.
    """
    writers = min(rank.world_size, MOST_WRITERS)
    found = []
    rest = iter(pieces)
    for number, bucket in enumerate(buckets([piece.tensor for piece in pieces])):
        writer = number % writers * rank.world_size // writers
        flat = _flat(bucket)
        dist.reduce(flat, writer)
        for (tensor, mean), piece in zip(_cut(flat / rank.world_size, bucket), rest, strict=False):
            if rank.rank == writer:
                whole = mean.to("cpu", tensor.dtype, copy=True)
                found.append(replace(piece, tensor=whole, copy=0, copies=1))
    return found


def buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbours that travel together: a message each would be slow, one for all a second model."""
    bucket: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.nbytes > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    # In float32: a sum over many ranks would lose most of bfloat16's eight bits.
    return nn.utils.parameters_to_vector(tensor.float() for tensor in tensors)


def _cut(
    flat: torch.Tensor, tensors: Sequence[torch.Tensor]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each tensor with its values in `flat`."""
    start = 0
    for tensor in tensors:
        yield tensor, flat[start : start + tensor.numel()].view_as(tensor)
        start += tensor.numel()
