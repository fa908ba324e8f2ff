"""The training loop: the same for every strategy and every kind of model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from orchestrator.training.batch import Batch, Dataset
from orchestrator.training.engines.base import Engine
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.feed import Feed
from orchestrator.training.layout import Layout
from orchestrator.training.metrics import Metrics, MetricsWriter, peak_memory_bytes
from orchestrator.training.optim import lr_at
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.stop import StopVote


@dataclass(frozen=True)
class Outcome:
    steps_done: int
    stopped: bool
    """SIGTERM ended training before its last step."""
    samples_per_s: float
    """Over all ranks and the whole training."""
    tokens_per_s: float | None
    """The same in tokens, where samples are made of them."""


class Trainer:
    """Takes an engine through its steps. All ranks make one, and call `fit` together."""

    def __init__(
        self, engine: Engine, dataset: Dataset, plan: TrainingPlan, rank: Rank, layout: Layout
    ) -> None:
        self.engine, self.dataset = engine, dataset
        self.plan, self.rank, self.layout = plan, rank, layout

    def fit(self, steps: int, writer: MetricsWriter | None, stop: StopVote) -> Outcome:
        """Train for `steps` optimizer steps; `writer` is rank 0's.

        Losses stay on the device between two reports, so the host never waits for it at a step.
        Raises TrainingFailed, on every rank at the same step, when a loss is not finite.
        """
        settings = self.plan.training
        started = reported = time.perf_counter()
        losses: list[torch.Tensor] = []
        weights = 0.0
        done = 0
        with Feed(self.dataset, self.layout, settings, first=0, steps=steps) as feed:
            while done < steps and not stop.agreed():
                lr = lr_at(done, steps, settings.optimizer.lr, settings.schedule)
                batches = feed.take()
                weight = self._weight(batches)
                losses.append(self.engine.gradients(batches, weight))
                norm = self.engine.step(lr)
                weights += weight
                done += 1
                if done % self.plan.logging.every_steps and done != steps:
                    continue
                loss = self._summed(losses, first_step=done - len(losses) + 1) / weights
                now = time.perf_counter()  # after the exchange, which waited for all devices
                if writer is not None:
                    rate = len(losses) * self.plan.global_batch / (now - reported)
                    writer.write(self._metrics(done, steps, loss, lr, norm, rate))
                losses, weights, reported = [], 0.0, now
        rate = done * self.plan.global_batch / (time.perf_counter() - started)
        return Outcome(done, done < steps, rate, self._tokens(rate))

    def _weight(self, batches: Sequence[Batch]) -> float:
        """Targets of this step over all data ranks."""
        mine = sum(batch.weight for batch in batches)
        if self.dataset.uniform:
            return float(mine * self.layout.data_size)
        total = torch.tensor(float(mine), dtype=torch.float64)
        dist.all_reduce(total)
        # Ranks that share a model have counted the same samples.
        return max(1.0, total.item() * self.layout.data_size / self.rank.world_size)

    def _tokens(self, samples: float) -> float | None:
        each = self.dataset.tokens_per_sample
        return None if each is None else samples * each

    def _metrics(
        self,
        done: int,
        steps: int,
        loss: float,
        lr: float,
        norm: torch.Tensor | None,
        samples_per_s: float,
    ) -> Metrics:
        return Metrics(
            step=done,
            steps=steps,
            epoch=round(done * self.plan.global_batch / len(self.dataset), 6),
            loss=loss,
            lr=lr,
            grad_norm=None if norm is None else norm.item(),
            tokens_per_s=self._tokens(samples_per_s),
            samples_per_s=samples_per_s,
            memory_bytes=peak_memory_bytes(self.rank.device),
        )

    def _summed(self, losses: list[torch.Tensor], *, first_step: int) -> float:
        """Sum over ranks and steps, from one exchange that also finds the first bad loss."""
        mine = torch.stack(losses).double().cpu()
        everyone = [torch.empty_like(mine) for _ in range(self.rank.world_size)]
        dist.all_gather(everyone, mine)
        table = torch.stack(everyone, dim=1)  # (steps, ranks)
        bad = (~table.isfinite()).nonzero()
        if len(bad):
            step, rank = bad[0].tolist()
            raise TrainingFailed(
                f"rank {rank}: the loss is {table[step, rank].item()} at step {first_step + step}",
                hint="lower training.optimizer.lr, set training.clip_grad_norm, or look for "
                "bad samples in the data",
            )
        return table.sum().item()
