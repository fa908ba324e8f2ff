"""Cross-entropy of logits that are cut along the vocabulary, which are never gathered."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Shard

from orchestrator.training.batch import IGNORED


def vocabulary_parallel_cross_entropy(logits: DTensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum over the targets that count, in nats: a float32 scalar, the same on all ranks.

    logits: (..., classes), cut evenly over a one-dimensional mesh along the classes; targets:
    int64 (...), whole on every rank. What travels is three numbers a target (Shoeybi et al.
    2019, section 3). Raises ValueError for another layout.
    """
    if logits.device_mesh.ndim != 1 or logits.placements not in {
        (Shard(-1),),
        (Shard(logits.ndim - 1),),
    }:
        raise ValueError(f"logits are laid out as {logits.placements}, not cut along the classes")
    local = logits.to_local().flatten(0, -2)
    loss: torch.Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        local,
        targets.flatten(),
        logits.device_mesh.get_local_rank(),
        logits.device_mesh.get_group(),
    )
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        targets: torch.Tensor,
        rank: int,
        group: dist.ProcessGroup,
    ) -> torch.Tensor:
        """logits: (targets, classes of this rank)."""
        counts = targets != IGNORED
        classes = logits.shape[1]
        own = targets - rank * classes
        mine = counts & (own >= 0) & (own < classes)
        own = own.where(mine, 0).unsqueeze(1)
        logits = logits.float()
        largest = logits.amax(1)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
        chances = (logits - largest.unsqueeze(1)).exp_()
        chosen = (logits.gather(1, own).squeeze(1) - largest) * mine
        sums = torch.stack((chances.sum(1), chosen))
        dist.all_reduce(sums, group=group)
        total, chosen = sums
        ctx.save_for_backward(chances.div_(total.unsqueeze(1)), own, mine, counts)
        loss: torch.Tensor = ((total.log() - chosen) * counts).sum()
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = grads
        chances, own, mine, counts = ctx.saved_tensors
        ahead = chances * counts.unsqueeze(1)
        ahead.scatter_add_(1, own, -mine.to(ahead.dtype).unsqueeze(1))
        return ahead.mul_(gradient), None, None, None
