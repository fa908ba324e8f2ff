"""One rank's failure, said by all in the same words."""

from __future__ import annotations

from typing import NoReturn

import torch
import torch.distributed as dist

from orchestrator.errors import UserError
from orchestrator.training.errors import TrainingFailed


def agree(error: BaseException | None) -> None:
    """Return where no rank has an `error`; else raise on all. Every rank calls it together."""
    mine = -1 if error is None else dist.get_rank()
    failed = torch.tensor([mine])
    dist.all_reduce(failed, op=dist.ReduceOp.MAX)
    if failed.item() >= 0:
        raise_together(error, int(failed.item()))


def raise_together(error: BaseException | None, failed_rank: int) -> NoReturn:
    """Raise TrainingFailed with `failed_rank`'s words on every rank; all call it together.

    What is no UserError is a defect: where it happened it is raised as it is, with its traceback.
    """
    said: list[tuple[str, str | None]] = [_words(error)]
    dist.broadcast_object_list(said, src=failed_rank, device=torch.device("cpu"))
    message, hint = said[0]
    if error is not None and not isinstance(error, UserError) and dist.get_rank() == failed_rank:
        raise error
    raise TrainingFailed(f"rank {failed_rank}: {message}", hint=hint) from error


def _words(error: BaseException | None) -> tuple[str, str | None]:
    if isinstance(error, UserError):
        return error.message, error.hint
    return f"{type(error).__name__}: {error}", "its log has the traceback"
