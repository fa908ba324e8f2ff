"""Run by each rank: goes through the training loop in many ways and writes what each gave.

Usage: loop_ranks.py OUT CASES, where CASES is a JSON object of cases by name; a case is
`{"training": {...}, "steps": n, "every_steps": n, "data": {...}, "evaluation": [...]}`, all but
`training` optional. "loss_scale" is fp16's first; for "data" see `Data`; "evaluation" holds
held-out losses in order, or is "heldout": real ones of the same data. Each rank writes
OUT.<rank>.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from orchestrator.errors import UserError
from orchestrator.spec.policies import Logging
from orchestrator.spec.training import Training
from orchestrator.training.batch import IGNORED, Batch
from orchestrator.training.engines import build_engine
from orchestrator.training.engines.base import Engine
from orchestrator.training.engines.torch_engine import TorchEngine
from orchestrator.training.entrypoint import run
from orchestrator.training.evaluation import Evaluate, evaluate
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import SharedGradScaler, prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.stop import StopVote

CONTEXT = 16
TEXT = torch.tensor(list(Path(__file__).read_bytes()), dtype=torch.uint8)


class Data(Windows):
    """`fails_at` [rank, n]: that rank's n-th batch (from 0) cannot be read, for `why` ("user" or
    "bug"). `uneven`: samples have different numbers of targets. `skipped`: of every batch."""

    def __init__(self, rank: int, options: dict[str, Any]) -> None:
        super().__init__(TEXT, CONTEXT)
        self.uneven = options.get("uneven", False)
        self.skipped = options.get("skipped", 0)
        failing, self.fails_at = options.get("fails_at", (-1, -1))
        self.why = options.get("why", "user") if failing == rank else "nothing"
        self.taken = 0
        self.uniform = not self.uneven

    def take(self, indices: Sequence[int]) -> Batch:
        self.taken += 1
        if self.why != "nothing" and self.taken > self.fails_at:
            if self.why == "bug":
                raise KeyError("a column that is not there")
            raise UserError("train.jsonl line 7 has no field text", hint="add it")
        batch = super().take(indices)
        if self.uneven:
            for row, index in enumerate(indices):
                batch.targets[row, : index % CONTEXT] = IGNORED
        weight = int((batch.targets != IGNORED).sum())
        return dataclasses.replace(batch, weight=weight, skipped=self.skipped)


class Spread:
    """How far the ranks' parameters are apart after each step."""

    def __init__(self, engine: Engine, model: torch.nn.Module) -> None:
        self.found: list[float] = []
        self._step, self._model = engine.step, model
        engine.step = self.step  # type: ignore[method-assign]

    def step(self, lr: float) -> torch.Tensor | None:
        norm = self._step(lr)
        mine = torch.cat([p.detach().flatten().double() for p in self._model.parameters()])
        largest, smallest = mine.clone(), mine.clone()
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
        self.found.append(float((largest - smallest).max()))
        return norm


def through(plan: TrainingPlan, rank: Rank, case: dict[str, Any]) -> dict[str, Any]:
    training = Training.model_validate(case["training"])
    prepare_arithmetic(training)
    layout = layout_of(plan, rank.rank)
    batch = training.micro_batch * training.accumulation * layout.data_size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        plan = dataclasses.replace(
            plan,
            training=training,
            global_batch=batch,
            metrics_path=path,
            logging=Logging(every_steps=case.get("every_steps", 1)),
        )
        model = ByteTransformer(context=CONTEXT, dim=16, layers=2, heads=2)
        engine = build_engine(NextByte(model), plan, rank, layout)
        if "loss_scale" in case:
            assert isinstance(engine, TorchEngine)
            engine.scaler = SharedGradScaler("cpu", init_scale=case["loss_scale"])
        spread = Spread(engine, model)
        data = Data(rank.rank, case.get("data", {}))
        trainer = Trainer(engine, data, plan, rank, layout)
        found: dict[str, Any] = {"error": None}
        try:
            with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
                outcome = trainer.fit(case.get("steps", 4), writer, stop, held_out(case, trainer))
            found |= dataclasses.asdict(outcome)
        except (UserError, KeyError) as error:
            found |= {"error": str(error), "kind": type(error).__name__}
        records = path.read_text().splitlines() if rank.is_main else []
    found["weights"] = float(sum(p.detach().double().abs().sum() for p in model.parameters()))
    found["threads"] = sorted(thread.name for thread in threading.enumerate())
    return found | {"spread": spread.found, "records": [json.loads(line) for line in records]}


def held_out(case: dict[str, Any], trainer: Trainer) -> Evaluate | None:
    wanted = case.get("evaluation")
    if wanted is None:
        return None
    if wanted == "heldout":
        heldout = Data(trainer.rank.rank, case.get("heldout", {}))
        return lambda: evaluate(
            trainer.engine, heldout, trainer.layout, micro_batch=16, batches=case.get("batches")
        )
    losses: Iterator[float] = iter(wanted)
    return lambda: next(losses)


def main(argv: Sequence[str]) -> int:
    out, cases = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    with process_group(plan, rank):
        found = {name: through(plan, rank, case) for name, case in json.loads(cases).items()}
        Path(f"{out}.{rank.rank}.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    run(main)
