"""Run by each rank: trains the same small model in many ways and writes what each step gave.

Usage: oracle_ranks.py OUT.json CASES, where CASES is a JSON object of cases by name; a case is
`{"training": {...}, "strategy": {...}, "model": {...}, "procs_per_node": n, "steps": n}`, all
optional. With POISON=<rank>:<step> in the environment that rank's loss becomes NaN at that step.
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
from torch import nn

from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.engines import build_engine
from orchestrator.training.entrypoint import run
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.stop import StopVote

STEPS = 6
CONTEXT = 16
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


def objective(kind: str = "bytes", **options: Any) -> Objective:
    """The same weights on every rank and in every case; `prepare_arithmetic` has seeded."""
    if kind == "bytes":
        return NextByte(Poisoned(context=CONTEXT, dim=16, layers=2, heads=2))
    from support.tiny_llama import tiny_llama

    from orchestrator.training.language.next_token import NextToken

    lora = options.pop("lora", None)
    model: nn.Module = tiny_llama(**options)
    if lora is not None:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear")
        config.init_lora_weights = (
            False  # B is not zero either, so that A matters from the first step
        )
        model = get_peft_model(model, config)
    return NextToken(model)


def trained(plan: TrainingPlan, rank: Rank, case: dict[str, Any]) -> dict[str, list[float]]:
    training = Training.model_validate(case.get("training", {}))
    prepare_arithmetic(training)
    plan = dataclasses.replace(
        plan,
        training=training,
        strategy=TypeAdapter[Strategy](Strategy).validate_python(
            case.get("strategy", {"name": "ddp"})
        ),
        procs_per_node=case.get("procs_per_node", plan.procs_per_node),
    )
    layout = layout_of(plan, rank.rank)
    batch = training.micro_batch * training.accumulation * layout.data_size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        plan = dataclasses.replace(plan, global_batch=batch, metrics_path=path)
        engine = build_engine(objective(**case.get("model", {})), plan, rank, layout)
        trainer = Trainer(engine, Windows(TEXT, CONTEXT), plan, rank, layout)
        with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
            trainer.fit(case.get("steps", STEPS), writer, stop)
        state = engine.state()
        if not rank.is_main:
            return {}
        records = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        "losses": [record["loss"] for record in records],
        "grad_norms": [record["grad_norm"] for record in records],
        # One number that every parameter moves: what was trained, not only what was said.
        "weights": [float(sum(t.double().abs().sum() for t in state.values()))],
    }


def main(argv: Sequence[str]) -> int:
    out, cases = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    with process_group(plan, rank):
        found = {name: trained(plan, rank, case) for name, case in json.loads(cases).items()}
    if rank.is_main:
        Path(out).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    run(main)
