"""Run by each rank: trains one model in many ways, and keeps every tensor that came out.

Usage: zero_ranks.py OUT.pt CASES, where CASES is a JSON object of cases by name; a case is
`{"training": {...}, "strategy": {...}, "model": {...}, "against": {...}}`, all optional. A model
has the options of `oracle_ranks.objective`, `frozen` (how many parameters are not trained) and
`made` ("from files" or "from config", by transformers). With `against`, another strategy, the
engine is also checked against a plan that says so.

Two things differ from production: every parameter is cut under ZeRO 3, where DeepSpeed would keep
these small ones whole; and fp16 is tried on CPUs that only emulate it, which DeepSpeed refuses.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from support.oracle_ranks import CONTEXT, TEXT, objective

from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.engines import build_engine, zero_config
from orchestrator.training.engines.base import Engine
from orchestrator.training.engines.loading import loading
from orchestrator.training.engines.zero_checks import check_engine
from orchestrator.training.entrypoint import run
from orchestrator.training.errors import PlanMismatch
from orchestrator.training.evaluation import evaluate
from orchestrator.training.language.next_token import NextToken
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.stop import StopVote

STEPS = 20


def cut_small_parameters_too() -> None:
    plain = zero_config.deepspeed_config

    def config(facts: Any) -> dict[str, Any]:
        made = plain(facts)
        made["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return made

    zero_config.deepspeed_config = config


def allow_emulated_fp16() -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    from deepspeed.accelerator import get_accelerator

    get_accelerator().is_fp16_supported = lambda: True


def model(
    plan: TrainingPlan,
    rank: Rank,
    *,
    frozen: int = 0,
    made: str = "plainly",
    lora: int | None = None,
    **options: Any,
) -> Objective:
    if made == "plainly":
        with loading(plan, rank):
            built = objective(**options)
    else:
        built = NextToken(by_transformers(made, objective(**options).model, plan, rank))
    for parameter in list(built.parameters())[:frozen]:
        parameter.requires_grad_(False)
    if lora is not None:
        built.model = adapted(built.model, lora)
    return built


def by_transformers(made: str, like: Any, plan: TrainingPlan, rank: Rank) -> Any:
    from transformers import AutoModelForCausalLM

    if made == "from config":
        torch.manual_seed(0)
        with loading(plan, rank):
            return AutoModelForCausalLM.from_config(like.config)
    folder = [tempfile.mkdtemp()] if rank.is_main else [""]
    dist.broadcast_object_list(folder)
    if rank.is_main:
        like.save_pretrained(folder[0])
    dist.barrier()
    with loading(plan, rank):
        found = AutoModelForCausalLM.from_pretrained(folder[0], dtype=torch.float32)
    dist.barrier()
    if rank.is_main:
        shutil.rmtree(folder[0])
    return found


def adapted(base: Any, lora: int) -> Any:
    from peft import LoraConfig, get_peft_model

    # init_lora_weights=False: B is not zero either, so that A matters from the first step.
    config = LoraConfig(
        r=lora, lora_alpha=2 * lora, target_modules="all-linear", init_lora_weights=False
    )
    torch.manual_seed(0)
    return get_peft_model(base, config)


def strategy_of(fields: dict[str, Any]) -> Any:
    return TypeAdapter[Strategy](Strategy).validate_python(fields)


def trained(plan: TrainingPlan, rank: Rank, case: dict[str, Any]) -> dict[str, Any]:
    training = Training.model_validate(case.get("training", {}))
    prepare_arithmetic(training)
    strategy = strategy_of(case.get("strategy", {"name": "ddp"}))
    plan = dataclasses.replace(plan, training=training, strategy=strategy)
    layout = layout_of(plan, rank.rank)
    batch = training.micro_batch * training.accumulation * layout.data_size
    data = Windows(TEXT, CONTEXT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        plan = dataclasses.replace(plan, global_batch=batch, metrics_path=path)
        built = model(plan, rank, **case.get("model", {}))
        engine = build_engine(built, plan, rank, layout)
        before = engine.state()
        trainer = Trainer(engine, data, plan, rank, layout)
        with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
            trainer.fit(STEPS // 2, writer, stop)
            # Between two steps, as in training: what it leaves behind must not change the next.
            heldout = evaluate(engine, data, layout, micro_batch=4, batches=3)
            trainer.fit(STEPS // 2, writer, stop)
        found = {
            "before": before,
            "heldout": heldout,
            "state": engine.state(),
            "buffers": {name: buffer.clone() for name, buffer in built.named_buffers()},
            "described": engine.describe(),
            "mismatch": mismatch(engine, plan, rank, case.get("against")),
        }
        if not rank.is_main:
            return {}
        records = [json.loads(line) for line in path.read_text().splitlines()]
    return found | {
        "losses": [record["loss"] for record in records],
        "grad_norms": [record["grad_norm"] for record in records],
    }


def mismatch(
    engine: Engine, plan: TrainingPlan, rank: Rank, against: dict[str, Any] | None
) -> str | None:
    if against is None:
        return None
    other = dataclasses.replace(plan, strategy=strategy_of(against))
    try:
        check_engine(engine.engine, other, rank, layout_of(other, rank.rank))
    except PlanMismatch as error:
        return error.message
    return None


def main(argv: Sequence[str]) -> int:
    out, cases = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    cut_small_parameters_too()
    allow_emulated_fp16()
    with process_group(plan, rank):
        found = {name: trained(plan, rank, case) for name, case in json.loads(cases).items()}
    if rank.is_main:
        torch.save(found, out)
    return 0


if __name__ == "__main__":
    run(main)
