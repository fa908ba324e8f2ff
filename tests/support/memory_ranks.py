"""Run by each rank: trains with as much memory as it is allowed.

Usage: memory_ranks.py OUT.json LIMITS [AFTER], where LIMITS is a JSON object of MiB by rank: so
much may be allocated from the first forward pass on, or from the one after AFTER of them, and each
of these wants WANTED MiB a sample. OUT holds rank 0's losses as they were reported.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path

import torch

from orchestrator.training.checkpoint.checkpoints import Checkpoints
from orchestrator.training.engines import build_engine
from orchestrator.training.entrypoint import STOPPED, run
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter, say
from orchestrator.training.plan import load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import process_group, rank_from
from orchestrator.training.stop import StopVote

CONTEXT = 512
STEPS = 3
WANTED = 256
"""MiB. What the process itself takes besides differs by machine and by image, and is small against
that: which micro batches fit within a limit is the same everywhere."""


class Limited(ByteTransformer):
    """With as much memory as LIMITS says."""

    limit: float | None = None
    after = 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.limit is not None and self.after == 0:
            allow(self.limit)
        if self.limit is not None and self.after <= 0:
            torch.empty(len(tokens) * (WANTED << 20), dtype=torch.uint8)
        self.after -= 1
        return super().forward(tokens)


def allow(mebibytes: float) -> None:
    """PyTorch's allocator fails beyond this much more private memory."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    used = int(status["VmData"].split()[0]) * 1024
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(mebibytes * 2**20), hard))


def main(argv: Sequence[str]) -> int:
    out, limits = Path(argv[0]), json.loads(argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))  # the image before has left its own
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    prepare_arithmetic(plan.training)
    with process_group(plan, rank):
        print(f"pid {os.getpid()} micro batch {plan.training.micro_batch}", flush=True)
        layout = layout_of(plan, rank.rank)
        text = torch.tensor(list(Path(__file__).read_bytes()) * 100, dtype=torch.uint8)
        model = Limited(context=CONTEXT, dim=16, layers=1, heads=1)
        model.limit = limits.get(str(rank.rank))
        if len(argv) > 2:
            model.after = int(argv[2])
        engine = build_engine(NextByte(model), plan, rank, layout)
        trainer = Trainer(engine, Windows(text, CONTEXT), plan, rank, layout)
        with (
            MetricsWriter.of(plan, rank) as writer,
            StopVote() as stop,
            Checkpoints(engine, plan, rank, layout) as checkpoints,
        ):
            outcome = trainer.fit(STEPS, writer, stop, checkpoints=checkpoints)
        if outcome.stopped:
            return STOPPED
        say(f"done after {outcome.steps_done}")
        if rank.is_main and plan.metrics_path is not None:
            records = [json.loads(line) for line in plan.metrics_path.read_text().splitlines()]
            out.write_text(json.dumps([record["loss"] for record in records]))
    return 0


if __name__ == "__main__":
    run(main)
