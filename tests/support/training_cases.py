"""Run by each rank: trains the same tiny model in several ways and writes their losses.

Usage: training_cases.py OUT.json CASES, where CASES is a JSON object of training settings by
name. With POISON=<rank>:<step> in the environment that rank's loss becomes NaN at that step.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from orchestrator.spec.training import Training
from orchestrator.training.engines import build_engine
from orchestrator.training.entrypoint import run
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.stop import StopVote

STEPS = 6
TEXT = torch.tensor(list(Path(__file__).read_bytes()), dtype=torch.uint8)


class Poisoned(ByteTransformer):
    calls = 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = super().forward(tokens)
        self.calls += 1
        rank, step = os.environ.get("POISON", ":").split(":")
        if (os.environ["RANK"], str(self.calls)) == (rank, step):
            return logits * float("nan")
        return logits


def losses(plan: TrainingPlan, rank: Rank, settings: dict[str, object]) -> list[float]:
    training = Training.model_validate(settings)
    prepare_arithmetic(training)
    batch = training.micro_batch * training.accumulation * rank.world_size
    plan = dataclasses.replace(plan, training=training, global_batch=batch)
    model = Poisoned(context=16, dim=16, layers=2, heads=2)
    layout = layout_of(plan, rank.rank)
    engine = build_engine(NextByte(model), plan, rank, layout)
    trainer = Trainer(engine, Windows(TEXT, 16), plan, rank, layout)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        plan = dataclasses.replace(plan, metrics_path=path)
        with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
            trainer.fit(STEPS, writer, stop)
        if not rank.is_main:
            return []
        return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


def main(argv: Sequence[str]) -> int:
    out, cases = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    with process_group(plan, rank):
        found = {name: losses(plan, rank, case) for name, case in json.loads(cases).items()}
    if rank.is_main:
        Path(out).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    run(main)
