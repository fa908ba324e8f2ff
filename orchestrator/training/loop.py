"""The training loop: data-parallel, with accumulation, mixed precision and clipping."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.spec.training import Training
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.metrics import Metrics, MetricsWriter, peak_memory_bytes
from orchestrator.training.model import next_byte_loss
from orchestrator.training.optim import build_optimizer, lr_at
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.precision import autocast, cast_parameters, grad_scaler
from orchestrator.training.process_group import Rank
from orchestrator.training.sampling import Windows, samples_of
from orchestrator.training.stop import StopVote


@dataclass(frozen=True)
class Outcome:
    steps_done: int
    stopped: bool
    """SIGTERM ended training before its last step."""
    tokens_per_s: float
    """Over all ranks and the whole training."""


class Trainer:
    """A model in training. All ranks make one, and call `fit` together."""

    def __init__(self, model: nn.Module, data: Windows, plan: TrainingPlan, rank: Rank) -> None:
        """`model` maps int64 (batch, time) to logits (batch, time, vocabulary); it is moved to
        the rank's device, and its parameters are made those of rank 0.
        """
        self.data, self.plan, self.rank = data, plan, rank
        self.settings: Training = plan.training
        self.model = model.to(rank.device)
        cast_parameters(self.model, self.settings)
        self.parallel = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self.optimizer = build_optimizer(self.model, self.settings.optimizer)
        self.scaler = grad_scaler(self.settings, rank.device)

    def fit(self, steps: int, writer: MetricsWriter | None, stop: StopVote) -> Outcome:
        """Train for `steps` optimizer steps; `writer` is rank 0's.

        Losses stay on the device between two reports, so the host never waits for it at a step.
        Raises TrainingFailed, on every rank at the same step, when a loss is not finite.
        """
        started = reported = time.perf_counter()
        losses: list[torch.Tensor] = []
        done = 0
        while done < steps and not stop.agreed():
            lr = lr_at(done, steps, self.settings.optimizer.lr, self.settings.schedule)
            losses.append(self._micro_batches(done))
            norm = self._optimizer_step(lr)
            done += 1
            if done % self.plan.logging.every_steps and done != steps:
                continue
            loss = self._mean_loss(losses, first_step=done - len(losses) + 1)
            now = time.perf_counter()  # after the exchange, which waited for all devices
            if writer is not None:
                samples_per_s = len(losses) * self.plan.global_batch / (now - reported)
                writer.write(self._metrics(done, steps, loss, lr, norm, samples_per_s))
            losses, reported = [], now
        tokens = done * self.plan.global_batch * self.data.context
        seconds = time.perf_counter() - started
        return Outcome(done, stopped=done < steps, tokens_per_s=tokens / seconds)

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
            epoch=round(done * self.plan.global_batch / self.data.count, 6),
            loss=loss,
            lr=lr,
            grad_norm=None if norm is None else norm.item(),
            tokens_per_s=samples_per_s * self.data.context,
            samples_per_s=samples_per_s,
            memory_bytes=peak_memory_bytes(self.rank.device),
        )

    def _micro_batches(self, step: int) -> torch.Tensor:
        """Forward and backward of one step; this rank's mean loss, still on the device."""
        count = self.settings.accumulation
        total = torch.zeros((), device=self.rank.device)
        for micro in range(count):
            inputs, targets = self._batch(step, micro)
            # Gradients travel once a step, with the last micro batch.
            quiet = nullcontext() if micro == count - 1 else self.parallel.no_sync()
            with quiet:
                with autocast(self.settings, self.rank.device):
                    loss = next_byte_loss(self.parallel(inputs), targets) / count
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _batch(self, step: int, micro: int) -> tuple[torch.Tensor, torch.Tensor]:
        samples = samples_of(
            step,
            micro,
            self.rank.rank,
            micro_batch=self.settings.micro_batch,
            accumulation=self.settings.accumulation,
            world_size=self.rank.world_size,
        )
        inputs, targets = self.data.batch(samples)
        if self.rank.device.type == "cuda":
            # From pinned memory the copy runs beside the previous step's kernels.
            inputs, targets = inputs.pin_memory(), targets.pin_memory()
        device = self.rank.device
        return inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def _optimizer_step(self, lr: float) -> torch.Tensor | None:
        """Clip, step and clear; the gradient norm where there is clipping."""
        norm = None
        if self.settings.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(
                self.parallel.parameters(), self.settings.clip_grad_norm
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return norm

    def _mean_loss(self, losses: list[torch.Tensor], *, first_step: int) -> float:
        """Mean over ranks and steps, from one exchange that also finds the first bad loss."""
        mine = torch.stack(losses).cpu()
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
        return table.mean().item()
