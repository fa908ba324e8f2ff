"""Post-local SGD (Lin et al. 2018, "Don't Use Large Mini-Batches, Use Local SGD")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint.pieces import MODEL, Piece, kind_of, own_key
from orchestrator.training.engines.averaging import average_in_place, buckets, means
from orchestrator.training.engines.ddp import DdpEngine
from orchestrator.training.engines.torch_engine import statistics_of
from orchestrator.training.layout import Layout
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank


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
        self.apart = False
        """Whether the ranks' parameters may differ."""
        self.diverged = False
        """Whether their optimizers' states may differ."""

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        return super().synchronised(last and self.steps < self.local.warmup_steps)

    def step(self, lr: float) -> torch.Tensor | None:
        norm = super().step(lr)
        alone = self.steps - self.local.warmup_steps
        if alone > 0:
            self.apart = self.diverged = True
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

    def pieces(self) -> list[Piece]:
        """Of what differs between ranks each one's own, from which the same ranks go on as if they
        had never stopped, and the mean (of 8-bit optimizer state, which has none, rank 0's), which
        any other engine or number of ranks takes over. Nothing that is trained changes."""
        same, differing, single = [], [], []
        for piece in super().pieces():
            if not self._differs(piece):
                same.append(piece)
            elif self._has_mean(piece):
                differing.append(piece)
            else:
                single.append(piece)
        own = [replace(self._own(piece), copy=0, copies=1) for piece in (*differing, *single)]
        first = [replace(piece, copy=self.rank.rank, copies=1) for piece in single]
        return [*same, *own, *first, *means(differing, self.rank)]

    def _differs(self, piece: Piece) -> bool:
        return self.apart if kind_of(piece.key) == MODEL else self.diverged

    def _has_mean(self, piece: Piece) -> bool:
        quantised = self.settings.optimizer.name == "adamw-8bit" and kind_of(piece.key) != MODEL
        return piece.tensor.is_floating_point() and not quantised

    def _own(self, piece: Piece) -> Piece:
        return replace(piece, key=own_key(piece.key, self.rank.rank))

    def scalars(self) -> dict[str, Any]:
        world = {"ranks": self.rank.world_size, "apart": self.apart, "diverged": self.diverged}
        return super().scalars() | {"local_sgd": world}

    def restore(self, fill: Callable[[Piece], None], scalars: Mapping[str, Any]) -> None:
        saved = scalars.get("local_sgd", {})
        same_ranks = saved.get("ranks") == self.rank.world_size
        self.apart = same_ranks and saved["apart"]
        self.diverged = same_ranks and saved["diverged"]
        for piece in super().pieces():
            fill(self._own(piece) if self._differs(piece) else piece)
        self.restore_scalars(scalars)

    @torch.no_grad()
    def average(self) -> None:
        """Replace each rank's trained parameters and statistics by their mean over the ranks."""
        if not self.apart:
            return
        trained = [p for p in self.objective.parameters() if p.requires_grad]
        counted = [s for s in statistics_of(self.objective) if s.is_floating_point()]
        for bucket in buckets([*trained, *counted]):
            average_in_place(bucket, self.rank.world_size)
        self.apart = False

    def describe(self) -> str:
        return f"local sgd every {self.local.interval} steps, {super().describe()}"
