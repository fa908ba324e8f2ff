"""One training from where it starts to where it ends: steps, reports, evaluations and saves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch

from orchestrator.training.agreement import raise_together
from orchestrator.training.checkpoint.checkpoints import Checkpoints
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.early_stopping import EarlyStopping
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.evaluation import Evaluate, HeldOut
from orchestrator.training.feed import Feed
from orchestrator.training.metrics import (
    Metrics,
    MetricsWriter,
    peak_memory_bytes,
    peak_reserved_bytes,
    warn,
)
from orchestrator.training.optim import lr_at
from orchestrator.training.outcome import Outcome
from orchestrator.training.rank_times import RankTimes, summary
from orchestrator.training.report import Period, Totals
from orchestrator.training.stop import StopVote
from orchestrator.training.throughput import Stopwatch

if TYPE_CHECKING:
    from orchestrator.training.loop import Trainer


class Course:
    """One call of `Trainer.fit`, from `start` on."""

    def __init__(
        self,
        trainer: Trainer,
        feed: Feed,
        steps: int,
        writer: MetricsWriter | None,
        stop: StopVote,
        evaluate: Evaluate | None,
        checkpoints: Checkpoints | None,
        start: Progress,
    ) -> None:
        self.trainer, self.engine, self.plan = trainer, trainer.engine, trainer.plan
        self.feed, self.steps = feed, steps
        self.writer, self.stop, self.evaluate = writer, stop, evaluate
        self.checkpoints, self.start = checkpoints, start
        self.weights = trainer.step_weights()
        self.stopwatch, self.period = Stopwatch(), Period()
        objective = trainer.engine.objective
        self.times = RankTimes(objective, trainer.plan, trainer.rank, trainer.layout)
        self.early = EarlyStopping(self.plan.training.evaluation)
        if start.early_stopping is not None:
            self.early.restore(start.early_stopping)
        self.done, self.samples, self.lr = start.step, start.samples, 0.0
        self.waited, self.stalled, self.skipped = 0.0, 0.0, start.samples_skipped
        self.own_data = (0.0, 0.0)
        self.norm: torch.Tensor | None = None
        self.eval_loss = start.eval_loss
        self.said: dict[str, float] = {}

    def through(self) -> Outcome:
        with self.times:
            ended = self.all_steps()
            self.weights.close()
            if len(self.period):
                self.report()
        story, unsaved = "", None
        if ended == "stopped":
            story = self.stopped()
        elif self.checkpoints is not None:
            unsaved = self.checkpoints.end(self.progress(), self.said)
        if ended != "stopped" and self.eval_loss is None:
            self.held_out()  # where the last step had been done before, and not this
        self.engine.finish()
        rate = (self.samples - self.start.samples) / self.stopwatch.seconds
        tokens = self.trainer.tokens(rate)
        return Outcome(
            self.done, ended, rate, tokens, self.eval_loss, self.early.best, story, unsaved
        )

    def all_steps(self) -> Literal["done", "stopped", "early"]:
        while self.done < self.steps and not self.early.over:
            for weight in self.feed.look_ahead():
                self.weights.ask(weight)
            save = self.checkpoints is not None and self.checkpoints.time_is_up()
            failing, steps = self.feed.failure is not None, (self.start.step, self.done)
            if self.stop.agreed(failing=failing, save=save, steps=steps):
                return "stopped"
            if self.stop.saving:
                self.save()
            self.step()
            if self.reports():
                self.report()
            if self.saves():
                self.save()
        return "early" if self.early.over else "done"

    def saves(self) -> bool:
        """Whether to save after this step, of which the losses have been seen if it is so."""
        checkpoints = self.checkpoints
        if checkpoints is None or len(self.period):
            return False
        return checkpoints.due(self.done) or checkpoints.is_better(self.said)

    def save(self) -> None:
        """Save; not before the losses were looked at, which might not be finite."""
        if len(self.period):
            self.report()
        if self.checkpoints is not None:
            self.checkpoints.save(self.progress(), self.said)

    def progress(self) -> Progress:
        return replace(
            self.start,
            step=self.done,
            samples=self.samples,
            early_stopping=self.early.state(),
            eval_loss=self.eval_loss,
            samples_skipped=self.skipped,
        )

    def stopped(self) -> str:
        """Save where that is asked for. Raises what ended training, if a rank failed."""
        where, problem = "no checkpoint was written", None
        if self.checkpoints is not None:
            where, problem = self.checkpoints.stop(self.progress(), self.said)
        story = f"stopped{self.stop.by} after step {self.done} of {self.steps}; {where}"
        if self.stop.failed_rank is not None:
            if self.checkpoints is not None and self.trainer.rank.is_main:
                warn(story)
            raise_together(self.feed.failure, self.stop.failed_rank)
        if problem is not None:
            raise TrainingFailed(story, hint="make room and resume")
        return story

    def step(self) -> None:
        settings = self.plan.training
        self.lr = lr_at(self.done, self.steps, settings.optimizer.lr, settings.schedule)
        weight = self.weights.take()
        self.period.add(self.engine.gradients(self.feed.take(), weight), weight)
        self.norm = self.engine.step(self.lr)
        if self.norm is not None:
            harmless = self.engine.left_out_overflow()
            self.period.add_norm(torch.zeros_like(self.norm) if harmless else self.norm)
        self.done += 1
        self.samples += self.plan.global_batch

    def reports(self) -> bool:
        every = self.plan.logging.every_steps
        saves = self.checkpoints is not None and self.checkpoints.due(self.done)
        return self.done % every == 0 or self.done == self.steps or self.evaluates() or saves

    def evaluates(self) -> bool:
        every = self.plan.training.evaluation.every_steps
        due = self.done == self.steps or (every is not None and self.done % every == 0)
        return due and self.evaluate is not None

    def report(self) -> None:
        """Tell rank 0 how the steps since the last report went."""
        steps = len(self.period)
        totals = self.period.close(
            last_step=self.done,
            waited=self.feed.waited,
            skipped=self.feed.skipped,
            way_back=str if self.checkpoints is None else self.checkpoints.way_back,
            own=self.own_times,
        )
        self.skipped = self.start.samples_skipped + totals.skipped
        seconds = self.stopwatch.lap()  # after the exchange, which waited for all devices
        found = self.held_out() if self.evaluates() else None
        self.said = _said(totals.loss, found)
        if self.writer is not None:
            rate = steps * self.plan.global_batch / seconds
            metrics = self.metrics(totals, rate, seconds, found)
            times = summary(totals.own, steps, forward=self.times.reason is None)
            self.writer.write(replace(metrics, **times))
        self.waited, self.stalled = totals.waited, self.stalled_so_far()
        if found is not None:
            self.early.gives_up(found.loss)

    def own_times(self) -> tuple[float, float, float]:
        """Seconds since the last report: in forward, waiting for data, and reading it beside."""
        before, self.own_data = self.own_data, (self.feed.waited, self.feed.reading)
        waited, reading = (now - then for now, then in zip(self.own_data, before, strict=True))
        return self.times.lap(), waited, reading

    def stalled_so_far(self) -> float:
        return 0.0 if self.checkpoints is None else self.checkpoints.stalled

    def held_out(self) -> HeldOut | None:
        if self.evaluate is None:
            return None
        found = self.stopwatch.beside(self.evaluate)
        self.stop.alive()
        found = found if isinstance(found, HeldOut) else HeldOut(found)
        self.eval_loss = found.loss
        return found

    def metrics(
        self, totals: Totals, samples_per_s: float, seconds: float, found: HeldOut | None
    ) -> Metrics:
        tokens_per_s = self.trainer.tokens(samples_per_s)
        device, utilisation = self.trainer.rank.device, self.trainer.utilisation
        return Metrics(
            step=self.done,
            steps=self.steps,
            epoch=round(self.samples / len(self.trainer.dataset), 6),
            loss=totals.loss,
            lr=self.lr,
            grad_norm=None if self.norm is None else self.norm.item(),
            tokens_per_s=tokens_per_s,
            samples_per_s=samples_per_s,
            memory_bytes=peak_memory_bytes(device),
            memory_reserved_bytes=peak_reserved_bytes(device),
            data_share=round((totals.waited - self.waited) / seconds, 4),
            checkpoint_stall=round((self.stalled_so_far() - self.stalled) / seconds, 4),
            start_step=self.start.step,
            seconds=round(seconds, 6),
            samples_skipped=self.skipped,
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
            rank_seconds_reason=self.times.reason,
        )


def _said(loss: float, found: HeldOut | None) -> dict[str, float]:
    """What a checkpoint can be the best by."""
    said = {"loss": loss}
    if found is not None:
        said["eval_loss"] = found.loss
        if found.accuracy is not None:
            said["eval_accuracy"] = found.accuracy
        if found.train_accuracy is not None:
            said["train_accuracy"] = found.train_accuracy
    return said
