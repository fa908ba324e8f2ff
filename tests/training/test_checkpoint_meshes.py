"""On grids of many ranks each element has its place, and one rank that writes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import _clear_sharding_prop_cache
from torch.testing._internal.distributed.fake_pg import FakeStore

from orchestrator.checkpoints.regions import runs
from orchestrator.training.checkpoint.pieces import Piece, torch_pieces, trained_tensors

GRIDS = [(1, 4, 1), (2, 4, 1), (1, 3, 2), (2, 3, 2), (1, 2, 4), (4, 1, 2), (16, 1, 1)]
"""Ranks along replicate, shard and tensor."""
PLACED = {
    "rows": ((8, 3), Shard(0)),
    "few rows": ((4, 5), Shard(0)),
    "columns": ((7, 8), Shard(1)),
    "norm": ((5,), Replicate()),
    "short": ((1,), Replicate()),
    "large": ((1000, 200), Shard(0)),
    "wide": ((200, 1000), Shard(1)),
}


@contextmanager
def rank_of_a_world(rank: int, world_size: int) -> Iterator[None]:
    """This process as one rank of many, of which the others are not there: nothing travels."""
    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()
        _clear_sharding_prop_cache()  # it keeps meshes, which know which rank this is


def whole() -> dict[str, torch.Tensor]:
    return {
        name: torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
        for name, (shape, _) in PLACED.items()
    }


def pieces_of_rank(grid: tuple[int, int, int]) -> list[Piece]:
    """Of tensors laid out as the fsdp engine does it: over tensor ranks first, then over data."""
    mesh = init_device_mesh("cpu", grid, mesh_dim_names=("replicate", "shard", "tensor"))
    model = nn.Module()
    for name, tensor in whole().items():
        part = tensor
        if grid[2] > 1:
            part = distribute_tensor(tensor, mesh["tensor"], [PLACED[name][1]], src_data_rank=None)
        model.register_parameter(name, nn.Parameter(part))
    fully_shard(model, mesh=mesh["replicate", "shard"] if grid[0] > 1 else mesh["shard"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return list(torch_pieces(trained_tensors(model), optimizer, copy=0, copies=1))


@pytest.mark.parametrize("grid", GRIDS)
def test_every_element_is_where_it_is_said_and_written_once(grid: tuple[int, int, int]) -> None:
    expected, world_size = whole(), math.prod(grid)
    written = {
        name: torch.zeros(tensor.numel(), dtype=torch.int) for name, tensor in whole().items()
    }
    for rank in range(world_size):
        with rank_of_a_world(rank, world_size):
            pieces = pieces_of_rank(grid)
        assert len(pieces) == len(PLACED)
        for piece in pieces:
            flat, start, stop = expected[piece.name].flatten(), *piece.share()
            local = piece.tensor.flatten()
            assert local.numel() == piece.region.numel
            for first, within, count in runs(piece.region, piece.shape):
                assert torch.equal(local[within : within + count], flat[first : first + count])
                low, high = max(start, within), min(stop, within + count)
                written[piece.name][first + low - within : first + max(low, high) - within] += 1
    assert all((count == 1).all() for count in written.values())
