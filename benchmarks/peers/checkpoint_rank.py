"""Run by each rank of `benchmarks/checkpoint.py`: OUT TASK. Rank 0 writes the rounds to OUT."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict

from orchestrator.checkpoints.names import committed_folders
from orchestrator.spec.policies import Checkpoint
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.checkpoint.resume import resume
from orchestrator.training.checkpoint.saver import Saver
from orchestrator.training.engines.ddp import DdpEngine
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.metrics import warn
from orchestrator.training.plan import load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import process_group, rank_from

CONTEXT = 32


@dataclass(frozen=True)
class CheckpointTask:
    folder: str
    rounds: int
    dim: int = 512
    layers: int = 4
    steps: int = 8
    """Of training, while a save goes on in the background."""


class Bench:
    """All ranks call its methods together; what they return is the slowest rank's."""

    def __init__(self, task: CheckpointTask) -> None:
        self.task, self.folder = task, Path(task.folder)
        plan = load_plan(os.environ, gpus=0)
        settings = Checkpoint(every_steps=1, keep_last=1)
        self.plan = dataclasses.replace(plan, checkpoint=settings, run_dir=self.folder / "run")
        self.rank = rank_from(os.environ, self.plan)
        prepare_arithmetic(self.plan.training)

    def set_up(self) -> None:
        layout = layout_of(self.plan, self.rank.rank)
        model = ByteTransformer(
            context=CONTEXT, dim=self.task.dim, layers=self.task.layers, heads=8
        )
        self.engine = DdpEngine(NextByte(model), self.plan, self.rank, layout)
        text = torch.tensor(list(Path(__file__).read_bytes()), dtype=torch.uint8)
        self.batch = Windows(text, CONTEXT).take([self.rank.rank])
        self.saver = Saver(self.engine, self.plan, self.rank, layout, self.folder / "run")
        self.group = dist.new_group(backend="gloo")
        self.step = 0
        self.train(2)
        self.sync()
        self.bytes = sum(path.stat().st_size for path in self.files())

    def files(self) -> list[Path]:
        newest = committed_folders(self.folder / "run" / "checkpoints")[-1]
        return sorted(newest.path.glob("*.safetensors"))

    def train(self, steps: int) -> None:
        weight = float(self.batch.weight * self.rank.world_size)
        for _ in range(steps):
            self.engine.gradients([self.batch], weight)
            self.engine.step(1e-4)

    def timed(self, work: Callable[[], object]) -> float:
        dist.barrier()
        started = time.perf_counter()
        work()
        seconds = torch.tensor([time.perf_counter() - started])
        dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
        return float(seconds.item())

    def save(self) -> None:
        self.step += 1
        self.saver.save(Progress(step=self.step))

    def sync(self) -> None:
        self.save()
        problem = self.saver.finish()
        assert problem is None, problem

    def raw(self) -> None:
        """The bytes of this rank's file once more, with nothing else done."""
        data = memoryview(self.files()[self.rank.rank].read_bytes())
        path = self.folder / f"raw-{self.rank.rank}"
        self.raw_seconds = self.timed(lambda: _write(path, data))
        path.unlink()

    def read(self) -> None:
        """The bytes of all files, which each rank of a ddp training wants."""
        buffer = bytearray(8 << 20)
        for path in self.files():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def load(self) -> None:
        root = self.folder / "run" / "checkpoints"
        found = resume(self.engine, root, self.plan, self.rank, warn)
        assert found is not None

    def dcp_state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.engine.module, self.engine.optimizer)
        return {"model": model, "optimizer": optimizer}

    def dcp_folder(self) -> str:
        folder = self.folder / "dcp"
        if self.rank.is_main:
            shutil.rmtree(folder, ignore_errors=True)
        dist.barrier()
        return str(folder)

    def dcp_sync(self) -> float:
        folder = self.dcp_folder()
        return self.timed(lambda: dcp.save(self.dcp_state(), checkpoint_id=folder))

    def dcp_async(self) -> float:
        folder, futures = self.dcp_folder(), []

        def stand_still() -> None:
            state = self.dcp_state()
            futures.append(dcp.async_save(state, checkpoint_id=folder, process_group=self.group))

        seconds = self.timed(stand_still)
        self.train(self.task.steps)
        for future in futures:
            future.result()
        return seconds

    def background(self) -> dict[str, float]:
        """A save in the background with training beside it, and the same training alone."""
        stall = 0.0

        def saving() -> None:
            nonlocal stall
            stall = self.timed(self.save)
            self.train(self.task.steps)

        both = self.timed(saving)
        self.saver.finish()
        alone = self.timed(lambda: self.train(self.task.steps))
        return {"async_stall": stall, "async_steps": both, "steps": alone}

    def one_round(self, *, forwards: bool) -> dict[str, float]:
        """Every measurement once; next to each other those that are compared."""
        found: dict[str, float] = {"bytes": self.bytes}
        parts: list[Callable[[], None]] = [
            lambda: found.update(sync=self.timed(self.sync)),
            lambda: found.update(self.background()),
            lambda: (self.raw(), found.update(raw=self.raw_seconds))[0],
            lambda: found.update(load=self.timed(self.load)),
            lambda: found.update(read=self.timed(self.read)),
            lambda: found.update(dcp_sync=self.dcp_sync()),
            lambda: found.update(dcp_async=self.dcp_async()),
        ]
        for part in parts if forwards else reversed(parts):
            part()
        return found


def _write(path: Path, data: memoryview) -> None:
    with path.open("wb", buffering=0) as file:
        while data:
            data = data[file.write(data[: 8 << 20]) :]
        os.fsync(file.fileno())


def main() -> None:
    out, task = Path(sys.argv[1]), CheckpointTask(**json.loads(sys.argv[2]))
    bench = Bench(task)
    with process_group(bench.plan, bench.rank):
        bench.set_up()
        bench.one_round(forwards=True)  # not counted: pages, kernels and imports are new
        rounds = [bench.one_round(forwards=n % 2 == 0) for n in range(task.rounds)]
        bench.saver.close()
    if bench.rank.is_main:
        out.write_text(json.dumps(rounds))
    # All is measured. DCP's async_save has gloo groups of its own, and taking them apart hung once
    # for good, in a destructor of torch 2.13, after the other rank had gone.
    os._exit(0)


if __name__ == "__main__":
    main()
