"""Run by each rank: trains the same small model several times, with delays, and reports as ever.

Usage: timed_ranks.py OUT CASES; CASES is a JSON object of cases by name, each
`{"forward": [rank, seconds], "data": [rank, seconds], "steps": n, "every_steps": n}`, all optional;
rank null means all. OUT/NAME/attempts/000/metrics.jsonl is what rank 0 reports.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from orchestrator.spec.policies import Logging
from orchestrator.training.batch import Batch
from orchestrator.training.engines import build_engine
from orchestrator.training.entrypoint import run
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.stop import StopVote

CONTEXT = 32
TEXT = torch.tensor(list(Path(__file__).read_bytes()), dtype=torch.uint8)


class SlowData(Windows):
    def __init__(self, seconds: float) -> None:
        super().__init__(TEXT, CONTEXT)
        self._seconds = seconds

    def take(self, indices: Sequence[int]) -> Batch:
        time.sleep(self._seconds)
        return super().take(indices)


class SlowModel(ByteTransformer):
    seconds = 0.0

    def forward(self, *arguments: Any, **named: Any) -> Any:
        if self.training:
            time.sleep(self.seconds)
        return super().forward(*arguments, **named)


def _delay(case: dict[str, Any], name: str, rank: Rank) -> float:
    which, seconds = case.get(name, (None, 0.0))
    return float(seconds) if which in (None, rank.rank) else 0.0


def train(plan: TrainingPlan, rank: Rank, case: dict[str, Any], folder: Path) -> None:
    plan = dataclasses.replace(
        plan,
        metrics_path=folder / "attempts" / "000" / "metrics.jsonl",
        logging=Logging(every_steps=case.get("every_steps", 10)),
    )
    model = SlowModel(context=CONTEXT, dim=64, layers=2, heads=2)
    model.seconds = _delay(case, "forward", rank)
    layout = layout_of(plan, rank.rank)
    engine = build_engine(NextByte(model), plan, rank, layout)
    data = SlowData(_delay(case, "data", rank))
    with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
        Trainer(engine, data, plan, rank, layout).fit(case.get("steps", 60), writer, stop)


def main(argv: Sequence[str]) -> int:
    out, cases = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    with process_group(plan, rank):
        for name, case in json.loads(cases).items():
            train(plan, rank, case, Path(out, name))
    return 0


if __name__ == "__main__":
    run(main)
