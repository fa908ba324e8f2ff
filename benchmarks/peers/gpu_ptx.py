"""A case of benchmarks/gpu.py by ptx, along the path of jobs/train_lm.py."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.spec.policies import Logging
from orchestrator.spec.training import Training
from orchestrator.training.engines.ddp import DdpEngine
from orchestrator.training.language.models import build_language_model
from orchestrator.training.language.tokenizers import load_tokenizer
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.plan import load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import process_group, rank_from
from orchestrator.training.stop import StopVote
from peers.documents import PackedDocuments
from peers.llama_case import Case, DeviceClock, contend


@dataclass(frozen=True)
class Settings:
    """The arguments of train_lm.py that say which model: a folder with a config and no weights."""

    model: str
    context: int
    adapter: None = None
    dim: int = 0
    layers: int = 0
    heads: int = 0
    kv_heads: None = None
    hidden: None = None
    tied: bool = False
    rope_theta: float = 0.0


def spec(case: Case) -> Training:
    """The spec's `training` section."""
    return Training.model_validate(
        {
            "precision": case.precision,
            "micro_batch": case.micro_batch,
            "clip_grad_norm": 1.0,
            "optimizer": {"name": case.optimizer, "lr": case.lr, "weight_decay": 0.0},
            "compile": case.compile,
            "lora": {"rank": case.rank, "alpha": 2.0 * case.rank} if case.lora else None,
            "out_of_memory": "fail",
            "seed": case.seed,
        }
    )


def train(case: Case) -> tuple[nn.Module, DeviceClock, float, str]:
    training = spec(case)
    prepare_arithmetic(training)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.config().save_pretrained(folder)
        plan = replace(
            load_plan({"WORLD_SIZE": "1"}, gpus=int(case.device == "cuda")),
            training=training,
            global_batch=case.micro_batch,
            logging=Logging(every_steps=case.all_steps),
            metrics_path=folder / "metrics.jsonl",
        )
        rank = rank_from({}, plan)
        data = PackedDocuments(
            samples=case.all_steps * case.micro_batch,
            context=case.context,
            vocabulary=case.vocabulary,
            seed=case.seed,
        )
        with process_group(plan, rank):
            layout = layout_of(plan, rank.rank)
            with torch.device(rank.device):  # drawing 8 billion numbers on the CPU takes minutes
                built = build_language_model(
                    Settings(str(folder), case.context),
                    plan,
                    rank,
                    load_tokenizer("bytes"),
                    packed=True,
                )
            engine = DdpEngine(built.objective, plan, rank, layout)
            clock = DeviceClock(engine.optimizer, case.device)
            trainer = Trainer(engine, data, plan, rank, layout)
            with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
                trainer.fit(case.all_steps, writer, stop)
        record = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    model: Any = built.objective.model
    how = f"{engine.describe()}, {model.config._attn_implementation}" + (
        ", compiled layers" if case.compile else ""
    )
    return model, clock, record["loss"], how


if __name__ == "__main__":
    contend(train)
