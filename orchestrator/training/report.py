"""What has added up since the last report, here and on the other ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from orchestrator.training.errors import TrainingFailed


@dataclass(frozen=True)
class Totals:
    """Of all ranks together."""

    loss: float
    """Mean over the targets of all steps since the last report."""
    waited: float
    """Seconds since the start that a rank, on average, stood still for data."""
    skipped: int
    """Samples since the start that could not be read."""


class Period:
    """The steps since the last report. Their losses stay on the device: nothing waits for it."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._weight = 0.0

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: torch.Tensor, weight: float) -> None:
        """A step's summed loss of this rank, and its weight over all ranks."""
        self._losses.append(loss)
        self._weight += weight

    def close(self, *, last_step: int, waited: float, skipped: int) -> Totals:
        """End the period after `last_step` (from 1), in one exchange; all ranks call it together.

        `waited` and `skipped` are this rank's. Waits for the devices of all ranks.
        Raises TrainingFailed, on all ranks, where a loss is not finite.
        """
        losses = torch.stack(self._losses).double().cpu()
        sums = torch.cat((losses, torch.tensor([waited, float(skipped)], dtype=torch.float64)))
        dist.all_reduce(sums)
        if not sums.isfinite().all():
            raise _not_finite(losses, last_step - len(self) + 1)
        *steps, all_waited, all_skipped = sums.tolist()
        mean = sum(steps) / self._weight
        self._losses, self._weight = [], 0.0
        return Totals(mean, all_waited / dist.get_world_size(), int(all_skipped))


def _not_finite(losses: torch.Tensor, first_step: int) -> TrainingFailed:
    """Whose loss was the first; asked only now, since every rank has to tell every other."""
    everyone = [torch.empty_like(losses) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, losses)
    table = torch.stack(everyone, dim=1)  # (steps, ranks)
    bad = (~table.isfinite()).nonzero()
    hint = (
        "lower training.optimizer.lr, set training.clip_grad_norm, or look for bad samples in "
        "the data"
    )
    if not len(bad):
        return TrainingFailed("the sum of all ranks' losses is not finite", hint=hint)
    step, rank = bad[0].tolist()
    return TrainingFailed(
        f"rank {rank}: the loss is {table[step, rank].item()} at step {first_step + step}",
        hint=hint,
    )
