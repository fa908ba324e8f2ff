"""The same training by ptx: its engine, feed, loop, stop vote and metrics, as in train_lm.py."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from orchestrator.spec.policies import Logging
from orchestrator.spec.training import Optimizer, Training
from orchestrator.training.engines.ddp import DdpEngine
from orchestrator.training.language.byte_model import NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.plan import load_plan
from orchestrator.training.process_group import Rank
from orchestrator.training.stop import StopVote
from peers.task import StepClock, Task


def train(task: Task, windows: Windows) -> tuple[nn.Module, StepClock]:
    training = Training(
        micro_batch=task.micro_batch,
        clip_grad_norm=task.clip,
        optimizer=Optimizer(lr=task.lr, betas=[0.9, 0.95], weight_decay=0.0),
        seed=task.seed,
    )
    ranks = dist.get_world_size()
    rank = Rank(dist.get_rank(), ranks, dist.get_rank(), torch.device("cpu"))
    model = task.model()
    with tempfile.TemporaryDirectory() as folder:
        plan = replace(
            load_plan({"WORLD_SIZE": str(ranks)}, gpus=0),
            training=training,
            global_batch=task.micro_batch * ranks,
            logging=Logging(every_steps=task.report_every),
            metrics_path=Path(folder, "metrics.jsonl"),
        )
        layout = layout_of(plan, rank.rank)
        engine = DdpEngine(NextByte(model), plan, rank, layout)
        clock = StepClock(engine.optimizer)
        trainer = Trainer(engine, windows, plan, rank, layout)
        with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
            trainer.fit(task.all_steps, writer, stop)
    return model, clock
