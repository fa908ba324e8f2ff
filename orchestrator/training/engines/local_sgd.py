"""Post-local SGD (Lin et al. 2018, "Don't Use Large Mini-Batches, Use Local SGD")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import nn

from orchestrator.training.batch import Batch
from orchestrator.training.engines.ddp import DdpEngine
from orchestrator.training.engines.torch_engine import statistics_of
from orchestrator.training.layout import Layout
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank

BUCKET_BYTES = 64 << 20


class LocalSgdEngine(DdpEngine):
    """Averages gradients for `warmup_steps` steps, then only parameters, every `interval` steps.

    In between each rank follows its own samples: it clips its own gradient, whose norm it reports,
    and keeps its own optimizer state, which is never averaged (with SGD and momentum every step
    averaged is then the same as DDP). Whoever asks for the model, in an evaluation or for its
    state, gets the average; the ranks go on from there.
    """

    def __init__(
        self, objective: Objective, plan: TrainingPlan, rank: Rank, layout: Layout
    ) -> None:
        super().__init__(objective, plan, rank, layout)
        if self.settings.local_sgd is None:
            raise ValueError("the plan has no training.local_sgd")
        self.local = self.settings.local_sgd
        self.steps = 0
        self.apart = False
        """Whether the ranks' parameters may differ."""

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        return super().synchronised(last and self.steps < self.local.warmup_steps)

    def step(self, lr: float) -> torch.Tensor | None:
        norm = super().step(lr)
        self.steps += 1
        alone = self.steps - self.local.warmup_steps
        if alone > 0:
            self.apart = True
            if alone % self.local.interval == 0:
                self.average()
        return norm

    def finish(self) -> None:
        self.average()

    def evaluate(
        self, batch: Batch, *, want_logits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.average()
        return super().evaluate(batch, want_logits=want_logits)

    def state(self, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, torch.Tensor]:
        self.average()
        return super().state(wanted)

    @torch.no_grad()
    def average(self) -> None:
        """Replace each rank's trained parameters and statistics by their mean over the ranks."""
        if not self.apart:
            return
        trained = [p for p in self.objective.parameters() if p.requires_grad]
        counted = [s for s in statistics_of(self.objective) if s.is_floating_point()]
        for bucket in _buckets([*trained, *counted]):
            _average(bucket, self.rank.world_size)
        self.apart = False

    def describe(self) -> str:
        return f"local sgd every {self.local.interval} steps, {super().describe()}"


def _buckets(tensors: Iterable[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
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


def _average(tensors: list[torch.Tensor], world_size: int) -> None:
    # In float32: a sum over many ranks would lose most of bfloat16's eight bits.
    flat = nn.utils.parameters_to_vector(tensor.float() for tensor in tensors)
    dist.all_reduce(flat)
    flat /= world_size
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()
