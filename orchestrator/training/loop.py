"""The training loop: the same for every strategy and every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from orchestrator.training.agreement import agree, raise_together
from orchestrator.training.batch import Dataset
from orchestrator.training.early_stopping import EarlyStopping
from orchestrator.training.engines.base import Engine
from orchestrator.training.evaluation import HeldOut
from orchestrator.training.feed import Feed
from orchestrator.training.flops import peak_of
from orchestrator.training.layout import Layout
from orchestrator.training.memory.fitting import Fitting
from orchestrator.training.metrics import (
    Metrics,
    MetricsWriter,
    peak_memory_bytes,
    peak_reserved_bytes,
)
from orchestrator.training.optim import lr_at
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.report import Period, Totals
from orchestrator.training.step_weights import StepWeights
from orchestrator.training.stop import StopVote
from orchestrator.training.throughput import Stopwatch, Utilisation

Evaluate = Callable[[], float | HeldOut]
"""Held-out loss in nats a target, with accuracies or alone; the same on all ranks, which call it
together."""


@dataclass(frozen=True)
class Outcome:
    steps_done: int
    ended: Literal["done", "stopped", "early"]
    """After the last step; by SIGTERM; or since the held-out loss got no better."""
    samples_per_s: float
    """Over all ranks and the whole training, evaluations left out."""
    tokens_per_s: float | None
    """The same in tokens, where samples are made of them."""
    eval_loss: float | None
    """The last held-out loss; None where nothing was evaluated."""
    best_loss: float | None
    """The lowest."""

    @property
    def stopped(self) -> bool:
        """SIGTERM ended training before its last step."""
        return self.ended == "stopped"


class Trainer:
    """Takes an engine through its steps. All ranks make one, and call `fit` together."""

    def __init__(
        self, engine: Engine, dataset: Dataset, plan: TrainingPlan, rank: Rank, layout: Layout
    ) -> None:
        self.engine, self.dataset = engine, dataset
        self.plan, self.rank, self.layout = plan, rank, layout
        peak = peak_of(rank.device, plan.training.precision)
        self.utilisation = Utilisation(
            engine.shape, dataset.tokens_per_sample, peak, rank.world_size
        )

    def fit(
        self,
        steps: int,
        writer: MetricsWriter | None,
        stop: StopVote,
        evaluate: Evaluate | None = None,
    ) -> Outcome:
        """Train for `steps` optimizer steps; `writer` is rank 0's.

        `evaluate` is called every training.evaluation.every_steps steps and after the last one,
        unless SIGTERM has ended training; training.evaluation.patience acts on what it returns.
        Losses stay on the device between two reports, so the host never waits for it at a step.
        Raises TrainingFailed, on every rank at the same step, when a loss is not finite or a rank
        cannot read its data. Where memory runs out all ranks start anew as new processes in place
        of these, as they do while looking for a micro batch: see `memory.fitting`.
        """
        with Fitting(self.plan, self.rank, stop) as fitting:
            fitting.search(self.trial)
            with self.feed(steps) as feed:
                return _Run(self, feed, steps, writer, stop, evaluate).through()

    def trial(self) -> int:
        """Train for two steps: only the second has activations beside the optimizer's state.
        Returns the most bytes that this rank has taken."""
        with self.feed(2) as feed:
            weights = self.step_weights()
            for weight in feed.look_ahead():
                weights.ask(weight)
            agree(feed.failure)
            for _ in range(2):
                self.engine.gradients(feed.take(), weights.take())
                self.engine.step(self.plan.training.optimizer.lr)
        return peak_memory_bytes(self.rank.device)

    def feed(self, steps: int) -> Feed:
        return Feed(self.dataset, self.layout, self.plan.training, first=0, steps=steps)

    def step_weights(self) -> StepWeights:
        """Nobody need ask where every sample has as many targets as another."""
        return StepWeights(self.layout, self.rank.world_size, uniform=self.dataset.uniform)

    def tokens(self, samples: float) -> float | None:
        each = self.dataset.tokens_per_sample
        return None if each is None else samples * each


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        trainer: Trainer,
        feed: Feed,
        steps: int,
        writer: MetricsWriter | None,
        stop: StopVote,
        evaluate: Evaluate | None,
    ) -> None:
        self.trainer, self.engine, self.plan = trainer, trainer.engine, trainer.plan
        self.feed, self.steps = feed, steps
        self.writer, self.stop, self.evaluate = writer, stop, evaluate
        self.weights = trainer.step_weights()
        self.stopwatch, self.period = Stopwatch(), Period()
        self.early = EarlyStopping(self.plan.training.evaluation)
        self.done, self.lr, self.waited = 0, 0.0, 0.0
        self.norm: torch.Tensor | None = None
        self.eval_loss: float | None = None

    def through(self) -> Outcome:
        ended: Literal["done", "stopped", "early"] = "done"
        while self.done < self.steps:
            for weight in self.feed.look_ahead():
                self.weights.ask(weight)
            if self.stop.agreed(failing=self.feed.failure is not None):
                ended = "stopped"
                break
            self.step()
            if self.reports() and self.report():
                ended = "early"
                break
        self.weights.close()
        if self.stop.failed_rank is not None:
            raise_together(self.feed.failure, self.stop.failed_rank)
        if len(self.period):
            self.report()
        self.engine.finish()
        rate = self.done * self.plan.global_batch / self.stopwatch.seconds
        tokens = self.trainer.tokens(rate)
        return Outcome(self.done, ended, rate, tokens, self.eval_loss, self.early.best)

    def step(self) -> None:
        settings = self.plan.training
        self.lr = lr_at(self.done, self.steps, settings.optimizer.lr, settings.schedule)
        weight = self.weights.take()
        self.period.add(self.engine.gradients(self.feed.take(), weight), weight)
        self.norm = self.engine.step(self.lr)
        self.done += 1

    def reports(self) -> bool:
        every = self.plan.logging.every_steps
        return self.done % every == 0 or self.done == self.steps or self.evaluates()

    def evaluates(self) -> bool:
        every = self.plan.training.evaluation.every_steps
        due = self.done == self.steps or (every is not None and self.done % every == 0)
        return due and self.evaluate is not None

    def report(self) -> bool:
        """Tell rank 0 how the steps since the last report went; and whether to give up."""
        steps = len(self.period)
        totals = self.period.close(
            last_step=self.done, waited=self.feed.waited, skipped=self.feed.skipped
        )
        seconds = self.stopwatch.lap()  # after the exchange, which waited for all devices
        waited, self.waited = totals.waited - self.waited, totals.waited
        found = self.held_out()
        if self.writer is not None:
            rate = steps * self.plan.global_batch / seconds
            metrics = self.metrics(totals, rate, waited / seconds, found)
            self.writer.write(metrics)
        return found is not None and self.early.gives_up(found.loss)

    def held_out(self) -> HeldOut | None:
        if self.evaluate is None or not self.evaluates():
            return None
        found = self.stopwatch.beside(self.evaluate)
        found = found if isinstance(found, HeldOut) else HeldOut(found)
        self.eval_loss = found.loss
        return found

    def metrics(
        self, totals: Totals, samples_per_s: float, data_share: float, found: HeldOut | None
    ) -> Metrics:
        tokens_per_s = self.trainer.tokens(samples_per_s)
        device, utilisation = self.trainer.rank.device, self.trainer.utilisation
        return Metrics(
            step=self.done,
            steps=self.steps,
            epoch=round(self.done * self.plan.global_batch / len(self.trainer.dataset), 6),
            loss=totals.loss,
            lr=self.lr,
            grad_norm=None if self.norm is None else self.norm.item(),
            tokens_per_s=tokens_per_s,
            samples_per_s=samples_per_s,
            memory_bytes=peak_memory_bytes(device),
            memory_reserved_bytes=peak_reserved_bytes(device),
            data_share=round(data_share, 4),
            samples_skipped=totals.skipped,
            steps_skipped=self.engine.skipped_steps(),
            eval_loss=None if found is None else found.loss,
            eval_accuracy=None if found is None else found.accuracy,
            train_accuracy=None if found is None else found.train_accuracy,
            mfu=utilisation.at(tokens_per_s),
            mfu_reason=utilisation.reason,
            flops_per_token=utilisation.flops_per_token,
            flops_formula=utilisation.formula,
            peak_flops=utilisation.peak.flops,
            peak_name=utilisation.peak.name,
        )
