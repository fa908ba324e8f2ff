"""Run by each rank: trains small image classifiers in many ways, and judges one.

Usage: classifier_ranks.py OUT.json CASES, where CASES is a JSON object of cases by name; a case is
`{"model": "vit" | "vgg", "training": {...}, "strategy": {...}}`. OUT holds, by case, the losses of
each step, the learned buffers' sum and what was predicted of an uneven number of samples.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from transformers import ViTConfig, ViTForImageClassification

from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.classification.objective import Classify
from orchestrator.training.classification.scores import Confusion
from orchestrator.training.engines import build_engine
from orchestrator.training.entrypoint import run
from orchestrator.training.evaluation import evaluate
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.stop import StopVote
from orchestrator.training.vision.augmentation import Augmentation
from orchestrator.training.vision.batch_norm import batch_norm_for
from orchestrator.training.vision.dataset import InputFormat, PictureDataset
from orchestrator.training.vision.digits import load_digits
from orchestrator.training.vision.vgg import Vgg, VggShape

STEPS = 6
SAMPLES, JUDGED = 20, 37  # neither is a multiple of a batch: epochs end and ranks run out inside
FORMAT = InputFormat(8, 1, (0.5,), (0.5,))


def objective(kind: str, rank: Rank) -> Classify:
    """The same weights in every case: `prepare_arithmetic` has seeded."""
    if kind == "vgg":
        shape = VggShape(1, 10, 8, width=8, depths=(1, 1), hidden=16, dropout=0.0)
        return Classify(Vgg(shape, batch_norm_for(rank)))
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.25,
        num_labels=10,
    )
    return Classify(ViTForImageClassification(config), label_smoothing=0.1)


def trained(plan: TrainingPlan, rank: Rank, case: dict[str, Any]) -> dict[str, Any]:
    training = Training.model_validate(case["training"])
    prepare_arithmetic(training)
    strategy = TypeAdapter[Strategy](Strategy).validate_python(
        case.get("strategy", {"name": "ddp"})
    )
    plan = dataclasses.replace(plan, training=training, strategy=strategy)
    layout = layout_of(plan, rank.rank)
    batch = training.micro_batch * training.accumulation * layout.data_size
    pictures = load_digits(seed=0).pictures
    change = Augmentation(seed=training.seed, crop=1, flip=True)
    samples = PictureDataset(pictures, range(SAMPLES), FORMAT, change)
    judged = PictureDataset(pictures, range(100, 100 + JUDGED), FORMAT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        plan = dataclasses.replace(plan, global_batch=batch, metrics_path=path)
        engine = build_engine(objective(case["model"], rank), plan, rank, layout)
        trainer = Trainer(engine, samples, plan, rank, layout)
        with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
            trainer.fit(STEPS, writer, stop)
        records = path.read_text().splitlines() if rank.is_main else []
    confusion = Confusion(10)
    loss = evaluate(
        engine, judged, layout, micro_batch=training.micro_batch, observe=confusion.observe
    )
    scores = confusion.scores()
    # All of them on every rank, one by one: the same collectives, whoever counts what.
    logits = [
        engine.evaluate(judged.take([number]), want_logits=True)[1] for number in range(JUDGED)
    ]
    state = engine.state()
    means = [tensor.double().sum() for name, tensor in state.items() if "running" in name]
    return {
        "losses": [json.loads(record)["loss"] for record in records],
        "statistics": float(sum(means)),
        "eval_loss": loss,
        "predicted": [int(row.argmax()) for row in logits if row is not None],
        "targets": judged.take(range(JUDGED)).targets.tolist(),
        "confusion": scores.confusion.tolist(),
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "f1": scores.f1,
        "precision": scores.precision,
        "recall": scores.recall,
    }


def main(argv: Sequence[str]) -> int:
    out, cases = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    with process_group(plan, rank):
        torch.set_num_threads(1)
        found = {name: trained(plan, rank, case) for name, case in json.loads(cases).items()}
    if rank.is_main:
        Path(out).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    run(main)
