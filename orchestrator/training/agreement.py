"""What goes wrong in one rank ends all of them, with the same sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from orchestrator.errors import UserError
from orchestrator.training.process_group import Rank


@contextmanager
def together(rank: Rank) -> Iterator[None]:
    """A UserError inside, in any rank, is raised in every rank, with the number of the first.

    All ranks enter and leave it together, and none meets another in a collective inside: a rank
    that has failed would not be there. Costs one all-reduce of one integer.
    """
    problem: UserError | None = None
    try:
        yield
    except UserError as error:
        problem = error
    if rank.world_size == 1:
        if problem is not None:
            raise problem
        return
    first = torch.tensor([rank.world_size if problem is None else rank.rank])
    dist.all_reduce(first, op=dist.ReduceOp.MIN)
    source = int(first.item())
    if source == rank.world_size:
        return
    said = [problem]
    dist.broadcast_object_list(said, src=source, device=torch.device("cpu"))
    (found,) = said
    if found is None:
        raise RuntimeError(f"rank {source} had a problem and did not say which")
    found.message = f"rank {source}: {found.message}"
    raise found
