"""What goes wrong in one rank ends all of them, with the same sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist

from orchestrator.errors import UserError
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.process_group import Rank

T = TypeVar("T")


@contextmanager
def together(rank: Rank) -> Iterator[None]:
    """A UserError inside, in any rank, is raised in every rank, with the number of the first.

    For what comes before training. All ranks enter and leave it together, and none meets another
    in a collective inside: a rank that has failed would not be there. Costs one all-reduce of one
    integer.
    """
    problem: UserError | None = None
    try:
        yield
    except UserError as error:
        problem = error
    if rank.world_size == 1:  # which may have no process group, and no number worth saying
        if problem is not None:
            raise problem
        return
    source = _first_failed(problem is not None)
    if source is None:
        return
    found = _said_by(source, problem)
    if found is None:
        raise RuntimeError(f"rank {source} had a problem and did not say which on rank {rank.rank}")
    found.message = f"rank {source}: {found.message}"
    raise found


def agree(error: BaseException | None) -> None:
    """Return where no rank has an `error`; else raise on all. Every rank calls it together."""
    source = _first_failed(error is not None)
    if source is not None:
        raise_together(error, source)


def raise_together(error: BaseException | None, failed_rank: int) -> NoReturn:
    """Raise TrainingFailed with `failed_rank`'s words on every rank; all call it together.

    What is no UserError is a defect: where it happened it is raised as it is, with its traceback.
    """
    message, hint = _said_by(failed_rank, _words(error))
    if error is not None and not isinstance(error, UserError) and dist.get_rank() == failed_rank:
        raise error
    raise TrainingFailed(f"rank {failed_rank}: {message}", hint=hint) from error


def _first_failed(failed: bool) -> int | None:
    world_size = dist.get_world_size()
    first = torch.tensor([dist.get_rank() if failed else world_size])
    dist.all_reduce(first, op=dist.ReduceOp.MIN)
    return None if first.item() == world_size else int(first.item())


def _said_by(source: int, mine: T) -> T:
    said = [mine]
    dist.broadcast_object_list(said, src=source, device=torch.device("cpu"))
    return said[0]


def _words(error: BaseException | None) -> tuple[str, str | None]:
    if isinstance(error, UserError):
        return error.message, error.hint
    return f"{type(error).__name__}: {error}", "its log has the traceback"
