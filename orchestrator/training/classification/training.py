"""Training a classifier from the first step to its test result, whatever it classifies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.errors import UserError
from orchestrator.training.batch import Dataset
from orchestrator.training.checkpoint.checkpoints import Checkpoints
from orchestrator.training.checkpoint.description import describe_model
from orchestrator.training.classification.objective import Classify
from orchestrator.training.classification.report import table, write_evaluation
from orchestrator.training.classification.scores import Confusion, Scores
from orchestrator.training.engines import build_engine
from orchestrator.training.engines.base import Engine
from orchestrator.training.entrypoint import STOPPED
from orchestrator.training.errors import NotSupported
from orchestrator.training.evaluation import HeldOut, evaluate
from orchestrator.training.language.partial import train_only
from orchestrator.training.layout import Layout
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter, say, warn
from orchestrator.training.outcome import Outcome
from orchestrator.training.output import SavedForm, write_model
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.stop import StopVote


@dataclass(frozen=True)
class ClassifierData:
    """What a classifier sees, part by part; the same on every rank."""

    train: Dataset
    seen: Dataset
    """Some of the training samples, not augmented: how well it knows what it has seen."""
    validation: Dataset
    test: Dataset
    classes: Sequence[str]
    source: str
    """In words, for the log."""


@dataclass(frozen=True)
class Classifier:
    objective: Classify
    form: SavedForm
    """Made while the model is whole."""
    origin: str
    """Where its weights come from, in words."""
    save_beside: Callable[[Path], None]
    """Writes what belongs to the model beside it, as a tokenizer."""


def refuse_for_classifiers(plan: TrainingPlan) -> None:
    """Raise NotSupported, naming the setting, for what only language models can do here."""
    settings = {
        "strategy.tensor_parallel": plan.strategy.tensor_parallel > 1,
        "strategy.pipeline_parallel": plan.strategy.pipeline_parallel > 1,
        "training.lora": plan.training.lora is not None,
    }
    for setting, wanted in settings.items():
        if wanted:
            raise NotSupported(
                f"classifiers are not trained with `{setting}`",
                hint="take that setting out of the spec",
            )


class ClassifierTraining:
    """Made and used by all ranks together."""

    def __init__(
        self,
        classifier: Classifier,
        data: ClassifierData,
        plan: TrainingPlan,
        rank: Rank,
        layout: Layout,
    ) -> None:
        """Raises UserError where the data do not suffice for so many ranks."""
        _check_sizes(data, layout)
        if plan.training.trainable is not None:
            train_only(classifier.objective.model, plan.training.trainable)
        self._classifier, self._data, self._rank, self._layout = classifier, data, rank, layout
        self._plan = _evaluated_each_epoch(plan, len(data.train))
        # DeepSpeed leaves a placeholder of size 0 where it has cut a parameter over the ranks.
        sizes = [
            int(getattr(parameter, "ds_numel", parameter.numel()))
            for parameter in classifier.objective.parameters()
        ]
        describe_model(classifier.form, plan, rank, beside=classifier.save_beside)
        self._engine: Engine = build_engine(classifier.objective, plan, rank, layout)
        if rank.is_main:
            parts = (data.train, data.validation, data.test)
            counts = " + ".join(f"{len(part):,}" for part in parts)
            say(f"data: {data.source}, {counts} to train, validate and test")
            say(
                f"model: {sum(sizes):,} parameters, {classifier.origin}; "
                f"{self._engine.describe()} on {rank.device.type}"
            )

    def run(self, epochs: int, folder: Path | None) -> int:
        """Train, test, and write the model to `folder`; returns the process's exit code."""
        outcome = self._fit(epochs * len(self._data.train))
        if outcome.stopped:
            warn(f"rank {self._rank.rank}: {outcome.story}; no model was written")
            return STOPPED
        if outcome.ended == "early" and self._rank.is_main:
            say(f"stopped at step {outcome.steps_done}: the validation loss got no better")
        loss, scores = self._judged(self._data.test)
        if self._rank.is_main:
            say(table(scores, self._data.classes))
        self._write(folder, outcome.steps_done, loss, scores)
        if self._rank.is_main:
            say(
                f"test accuracy {scores.accuracy:.4f}, macro F1 {scores.macro_f1:.4f}, "
                f"loss {loss:.4f} nats/sample, {outcome.samples_per_s:,.0f} samples/s"
            )
        outcome.check_saved()
        return 0

    def _fit(self, samples: int) -> Outcome:
        # Ranks that share a model drop the same activations, the others different ones.
        torch.manual_seed(self._plan.training.seed + self._layout.data_rank)
        engine, plan, rank, layout = self._engine, self._plan, self._rank, self._layout
        trainer = Trainer(engine, self._data.train, plan, rank, layout)
        steps = -(-samples // plan.global_batch)
        with (
            MetricsWriter.of(plan, rank) as writer,
            StopVote.of(rank) as stop,
            Checkpoints(engine, plan, rank, layout) as checkpoints,
        ):
            return trainer.fit(steps, writer, stop, self._held_out, checkpoints, samples=samples)

    def _held_out(self) -> HeldOut:
        batches = self._plan.training.evaluation.batches
        loss, scores = self._judged(self._data.validation, batches)
        _, seen = self._judged(self._data.seen, batches)
        return HeldOut(loss, scores.accuracy, seen.accuracy)

    def _judged(self, dataset: Dataset, batches: int | None = None) -> tuple[float, Scores]:
        """Loss in nats a sample, and scores, over all of `dataset` or `batches` a rank."""
        confusion = Confusion(len(self._data.classes))
        loss = evaluate(
            self._engine,
            dataset,
            self._layout,
            micro_batch=self._plan.training.micro_batch,
            batches=batches,
            observe=confusion.observe,
        )
        return loss, confusion.scores()

    def _write(self, folder: Path | None, step: int, loss: float, scores: Scores) -> None:
        classifier = self._classifier
        if folder is None:
            if self._rank.is_main:
                warn("the trained model is not kept: name a folder for it with --output")
            return
        state = self._engine.state(classifier.form.names.__contains__)
        if not self._rank.is_main:
            return

        def beside(new: Path) -> None:
            classifier.save_beside(new)
            write_evaluation(new, scores, self._data.classes, loss=loss, step=step)

        write_model(
            classifier.form,
            state,
            folder,
            step=step,
            beside=beside,
            group_shared=self._plan.group_shared,
        )
        say(f"{classifier.form.what}: {folder}")


def _check_sizes(data: ClassifierData, layout: Layout) -> None:
    for part, dataset in (("validation", data.validation), ("test", data.test)):
        if not len(dataset):
            raise UserError(
                f"no sample is left for {part}: {data.source}",
                hint="give more data, or a validation and a test part of your own",
            )
    if len(data.train) < layout.data_size:
        raise UserError(
            f"{len(data.train)} training samples cannot be shared by {layout.data_size} ranks: "
            f"{data.source}",
            hint="use fewer ranks, or more data",
        )


def _evaluated_each_epoch(plan: TrainingPlan, samples: int) -> TrainingPlan:
    """Unless training.evaluation.every_steps says otherwise."""
    settings = plan.training.evaluation
    if settings.every_steps is not None:
        return plan
    every = -(-samples // plan.global_batch)
    training = plan.training.model_copy(
        update={"evaluation": settings.model_copy(update={"every_steps": every})}
    )
    return dataclasses.replace(plan, training=training)
