"""Run by each rank: trains the same small model in many ways and writes what each step gave.

Usage: oracle_ranks.py OUT.json CASES, where CASES is a JSON object of cases by name; a case is
`{"training": {...}, "strategy": {...}, "model": {...}, "procs_per_node": n, "steps": n,
"meta": bool}`, all optional; with "meta" the model is made as the entrypoints do, on the meta
device where a rank need not have it. "save" is a file for rank 0's state dict, "heldout" asks for
the loss and the summed logits of that many samples after training, "packed" cuts samples into
documents of two lengths, "logits_at_once" is the objective's. With POISON=<rank>:<step> in the
environment that rank's loss becomes NaN at that step.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch import nn

from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.batch import IGNORED, Batch
from orchestrator.training.engines import build_engine
from orchestrator.training.engines.base import Engine
from orchestrator.training.engines.loading import loading
from orchestrator.training.entrypoint import run
from orchestrator.training.evaluation import evaluate
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import Layout, layout_of
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


class Packed(Windows):
    """Two documents in each sample, of 5 tokens and of the rest; none predicts the next one."""

    def take(self, indices: Sequence[int]) -> Batch:
        batch = super().take(indices)
        row = torch.cat((torch.arange(5), torch.arange(self.context - 5)))
        positions = row.repeat(len(indices), 1)
        targets = batch.targets.clone()
        targets[:, 4] = IGNORED
        return Batch(
            batch.inputs | {"positions": positions}, targets, weight=int((targets >= 0).sum())
        )


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
    from support.tiny_llama import tiny_llama, tiny_relative

    from orchestrator.training.language.next_token import NextToken

    lora = options.pop("lora", None)
    frozen = options.pop("frozen", None)
    base = getattr(torch, options.pop("base", "float32"))
    at_once = options.pop("logits_at_once", NextToken.logits_at_once)
    model: nn.Module = tiny_llama(**options) if kind == "llama" else tiny_relative(kind)
    if lora is not None:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear")
        config.init_lora_weights = (
            False  # B is not zero either, so that A matters from the first step
        )
        model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if frozen is not None and frozen in name:
            parameter.requires_grad = False
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(base)
    found = NextToken(model)
    found.logits_at_once = at_once
    return found


def heldout(engine: Engine, data: Windows, layout: Layout, micro_batch: int) -> list[float]:
    logits = torch.zeros((), dtype=torch.float64)

    def observe(found: torch.Tensor, batch: Batch) -> None:
        assert found.shape[:2] == batch.targets.shape
        logits.add_(found.double().abs().sum())

    loss = evaluate(engine, data, layout, micro_batch=micro_batch, observe=observe)
    dist.all_reduce(logits)  # only ranks that own a loss have seen any
    return [loss, logits.item()]


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
        with loading(plan, rank) if case.get("meta") else nullcontext():
            made = objective(**case.get("model", {}))
        if "logits_at_once" in case:
            made.logits_at_once = case["logits_at_once"]
        engine = build_engine(made, plan, rank, layout)
        data = (Packed if case.get("packed") else Windows)(TEXT, CONTEXT)
        trainer = Trainer(engine, data, plan, rank, layout)
        with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
            trainer.fit(case.get("steps", STEPS), writer, stop)
        seen = {}
        if "heldout" in case:
            some = type(data)(TEXT[: case["heldout"] * CONTEXT + 1], CONTEXT)
            seen["heldout"] = heldout(engine, some, layout, training.micro_batch)
        state = engine.state()
        if rank.is_main and "save" in case:
            torch.save(state, case["save"])
        if not rank.is_main:
            return {}
        records = [json.loads(line) for line in path.read_text().splitlines()]
    return seen | {
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
