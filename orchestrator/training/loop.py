"""The training loop: the same for every strategy and every kind of model."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.training.agreement import agree
from orchestrator.training.batch import Batch, Dataset
from orchestrator.training.checkpoint.checkpoints import Checkpoints
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.course import Course
from orchestrator.training.engines.base import Engine
from orchestrator.training.evaluation import Evaluate
from orchestrator.training.feed import Feed
from orchestrator.training.flops import peak_of
from orchestrator.training.layout import Layout
from orchestrator.training.memory.fitting import Fitting
from orchestrator.training.metrics import MetricsWriter, peak_memory_bytes
from orchestrator.training.outcome import Outcome
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.step_weights import StepWeights
from orchestrator.training.stop import StopVote
from orchestrator.training.throughput import Utilisation


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
        checkpoints: Checkpoints | None = None,
        *,
        samples: int | None = None,
    ) -> Outcome:
        """Train until `steps` optimizer steps are done; `writer` is rank 0's.

        With `checkpoints` training goes on where the newest one was taken, and saves as the spec
        says. `samples`: how many make up these steps, where that is what was asked for; then a
        resumed training with another batch size does the steps that are left of them.
        `evaluate` is called every training.evaluation.every_steps steps and after the last one,
        unless training was stopped; training.evaluation.patience acts on what it returns.
        Losses stay on the device between two reports, so the host never waits for it at a step.
        Raises TrainingFailed, on every rank at the same step, when a loss is not finite or a rank
        cannot read its data, or when a stop could not be saved as it should. Where memory runs out
        all ranks start anew as new processes in place of these, as they do while looking for a
        micro batch: see `memory.fitting`.
        """
        with Fitting(self.plan, self.rank, stop) as fitting:
            start = Progress()
            if checkpoints is not None:
                fitting.adopt(checkpoints.found())
            fitting.search(self.trial)
            if checkpoints is not None:
                if checkpoints.goes_on:
                    self.engine.settle(self.some_batches)
                start = checkpoints.resume(anew=fitting.anew)
            start = replace(
                start,
                micro_batch=fitting.micro_batch,
                samples_a_rank=self.plan.training.micro_batch * self.plan.training.accumulation,
            )
            if samples is not None:
                steps = start.step - (start.samples - samples) // self.plan.global_batch
            with self.feed(max(0, steps - start.step), start.samples) as feed:
                course = Course(self, feed, steps, writer, stop, evaluate, checkpoints, start)
                return course.through()

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

    def some_batches(self) -> list[Batch]:
        """This rank's part of a step. Raises, on all ranks, where one cannot read its own."""
        with self.feed(1) as feed:
            feed.look_ahead()
            agree(feed.failure)
            return feed.take()

    def feed(self, steps: int, samples: int = 0) -> Feed:
        """Of `steps` steps after the first `samples` samples."""
        return Feed(self.dataset, self.layout, self.plan.training, steps=steps, samples=samples)

    def step_weights(self) -> StepWeights:
        """Nobody need ask where every sample has as many targets as another."""
        return StepWeights(self.layout, self.rank.world_size, uniform=self.dataset.uniform)

    def tokens(self, samples: float) -> float | None:
        each = self.dataset.tokens_per_sample
        return None if each is None else samples * each
