"""What has added up since the last report, here and on the other ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    own: torch.Tensor
    """(times, ranks): each rank's own since the last report."""


class Period:
    """The steps since the last report. Their losses stay on the device: nothing waits for it."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._norms: list[torch.Tensor] = []
        self._weight = 0.0

    def __len__(self) -> int:
        return len(self._losses)

    def add(self, loss: torch.Tensor, weight: float) -> None:
        """A step's summed loss of this rank, and its weight over all ranks."""
        self._losses.append(loss)
        self._weight += weight

    def add_norm(self, norm: torch.Tensor) -> None:
        """The gradient's norm of the step that was added last, where it has to be finite."""
        self._norms.append(norm)

    def close(
        self,
        *,
        last_step: int,
        waited: float,
        skipped: int,
        way_back: Callable[[], str] = str,
        own: Callable[[], Sequence[float]] = tuple,
    ) -> Totals:
        """End the period after `last_step` (from 1), in one exchange; all ranks call it together.

        `waited` and `skipped` are this rank's. Waits for the devices of all ranks.
        Raises TrainingFailed, on all ranks, where a loss or a gradient's norm is not finite;
        `way_back`, which all ranks call then, says where training can go on from. `own`: times
        of this rank, as many on all ranks, asked for when its device is done.
        """
        losses = torch.stack(self._losses).double().cpu()
        norms = torch.stack(self._norms or [torch.zeros(())]).double().cpu()
        broken = float(not norms.isfinite().all())
        counts = torch.tensor([waited, float(skipped), broken], dtype=torch.float64)
        # A table of which each rank fills its own column is gathered by the same sum.
        ranks = dist.get_world_size()
        mine = torch.tensor(own(), dtype=torch.float64)
        table = torch.zeros(len(mine), ranks, dtype=torch.float64)
        table[:, dist.get_rank()] = mine
        exchanged = torch.cat((losses, counts, table.flatten()))
        dist.all_reduce(exchanged)
        sums, times = exchanged[: -table.numel() or None], exchanged[len(losses) + len(counts) :]
        if sums[-1] or not sums.isfinite().all():
            raise _not_finite(losses, norms, last_step, way_back())
        *steps, all_waited, all_skipped, _ = sums.tolist()
        mean = sum(steps) / self._weight
        self._losses, self._norms, self._weight = [], [], 0.0
        return Totals(mean, all_waited / ranks, int(all_skipped), times.view(table.shape))


def _not_finite(
    losses: torch.Tensor, norms: torch.Tensor, last_step: int, way_back: str
) -> TrainingFailed:
    """What was the first; asked only now, since every rank has to tell every other."""
    everyone = [torch.empty_like(losses) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, losses)
    table = torch.stack(everyone, dim=1)  # (steps, ranks)
    spoilt = (~norms.isfinite()).double()
    dist.all_reduce(spoilt)
    bad_losses, bad_norms = (~table.isfinite()).nonzero(), spoilt.nonzero()
    step_of_norm = last_step - len(norms) + 1 + int(bad_norms[0]) if len(bad_norms) else None
    hint = (
        "lower training.optimizer.lr, set training.clip_grad_norm, or look for bad samples in "
        "the data"
    )
    if len(bad_losses):
        index, rank = bad_losses[0].tolist()
        step = last_step - len(losses) + 1 + index
        if step_of_norm is None or step <= step_of_norm:
            loss = table[index, rank].item()
            return TrainingFailed(
                f"rank {rank}: the loss is {loss} at step {step}{way_back}", hint=hint
            )
    if step_of_norm is None:
        return TrainingFailed(f"the sum of all ranks' losses is not finite{way_back}", hint=hint)
    return TrainingFailed(
        f"the gradient's norm is not finite at step {step_of_norm}, though the loss is: the step "
        f"has spoilt the parameters{way_back}",
        hint="lower training.optimizer.lr, look for bad samples in the data, or compute in a wider "
        "format (training.precision); then resume",
    )
