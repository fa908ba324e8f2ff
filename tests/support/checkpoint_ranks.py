"""Run by each rank: trains, saves, loads what other strategies and world sizes saved, trains on.

Usage: checkpoint_ranks.py OUT ROOT JOBS, where ROOT is a folder of checkpoints by name and JOBS a
JSON list, done in order. A job is a method of Checks with its arguments, and `"as"`, the name of
what it gives; rank r writes OUT-r.json. The global batch has 8 samples, whatever the world size.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from support.checkpoint_job import AFTER, BEFORE, Case, Job, Seen, unequal

from orchestrator.checkpoints.convert import convert
from orchestrator.checkpoints.manifest import Manifest, read_manifest
from orchestrator.checkpoints.names import step_folder
from orchestrator.checkpoints.regions import Box, Span
from orchestrator.errors import UserError
from orchestrator.training.checkpoint.files import Copied, Reader, write_rank_file
from orchestrator.training.checkpoint.pieces import Piece
from orchestrator.training.entrypoint import run
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.process_group import Rank, process_group, rank_from


class Checks:
    """One method a job."""

    def __init__(self, plan: TrainingPlan, rank: Rank, root: Path) -> None:
        self.plan, self.rank, self.root = plan, rank, root

    def save(self, name: str, case: Case) -> Seen:
        """Train, save, and train on."""
        job = Job(case, self.plan, self.rank)
        job.train(BEFORE)
        tensors = job.whole()
        job.save(self.root / name)
        changed = unequal(job.whole(), tensors)
        if self.rank.is_main:
            torch.save(tensors, self.root / name / "whole.pt")
        scalars = job.engine.scalars()
        kept = {
            "changed": changed,
            "keys": [piece.key for piece in job.engine.pieces()],
            "scalars": scalars,
        }
        return kept | {"losses": job.train(AFTER)}

    def load(self, names: Sequence[str], case: Case, without: str | None = None) -> Seen:
        """Load one after the other into the same engine, which had other weights; train on."""
        job = Job(case, self.plan, self.rank, seed=99)
        job.engine.settle(lambda: job.batches(0))
        seen: Seen = {}
        for name in names:
            job.load(self.root / name, without=without)
            saved = torch.load(self.root / name / "whole.pt")
            if self.bf16(job):
                saved = {key: cast(key, tensor) for key, tensor in saved.items()}
            wrong = unequal(job.whole(), saved)
            scalars = job.engine.scalars()
            seen[name] = {"unequal": wrong, "losses": job.train(AFTER), "scalars": scalars}
        return seen

    @staticmethod
    def bf16(job: Job) -> bool:
        return job.training.precision == "bf16"

    def memory(self) -> Seen:
        """How many bytes more this process takes after the last of 64 tensors than half-way: at
        first the memory allocator keeps some of what it was given back."""
        folder, shape = self.root / "large", (1 << 10, 1 << 10)
        folder.mkdir(parents=True)
        part = torch.ones(shape).flatten()
        parts = [Copied(f"model/{n}", shape, Span(0, part.numel()), part) for n in range(64)]
        manifest = Manifest(
            "any", 1, 0, 0.0, 1, {}, {}, (write_rank_file(folder, 0, parts, {}, 0o600),), {}
        )
        pieces = [
            Piece("model/0", shape, Span(0, part.numel()), torch.zeros(shape)),
            Piece("model/0", shape, Box((0, 3), (shape[0], 500)), torch.zeros(shape[0], 500)),
        ]
        with closing(Reader(folder, manifest)) as reader:
            peaks = []
            for copy in parts:
                for piece in pieces:
                    reader.fill(dataclasses.replace(piece, key=copy.key))
                peaks.append(peak_bytes())
        right = all(bool((piece.tensor == 1).all()) for piece in pieces)
        return {"more": peaks[-1] - peaks[31], "tensor": 4 * part.numel(), "right": right}

    def refusals(self, name: str, cases: dict[str, Case]) -> Seen:
        """What is said where the checkpoint is not one of the case's."""
        seen: Seen = {}
        for what, case in cases.items():
            job = Job(case, self.plan, self.rank)
            try:
                job.load(self.root / name)
            except UserError as error:
                seen[what] = error.message
        return seen

    def outside(self) -> Seen:
        """What is said of a trained parameter that would not be saved."""
        seen: Seen = {}
        for strategy in ("ddp", "fsdp"):
            job = Job({"strategy": {"name": strategy}, "beside": True}, self.plan, self.rank)
            try:
                job.engine.pieces()
            except UserError as error:
                seen[strategy] = error.message
        return seen

    def names(self, cases: dict[str, Case]) -> Seen:
        """Keys and shapes of the pieces."""
        return {
            what: sorted((p.key, p.shape) for p in Job(case, self.plan, self.rank).engine.pieces())
            for what, case in cases.items()
        }

    def local_sgd(self, name: str, case: Case, elsewhere: Case) -> Seen:
        """Undisturbed; with a save in between; from that save; elsewhere from that save; and from
        what `ptx checkpoints convert` makes of it."""
        steps = range(BEFORE, BEFORE + AFTER)
        undisturbed, saving = (Job(case, self.plan, self.rank) for _ in range(2))
        losses = {}
        undisturbed.train(BEFORE)
        losses["undisturbed"] = [undisturbed.each(step) for step in steps]
        saving.train(BEFORE)
        own = saving.own()
        everyone: list[Any] = [None] * self.rank.world_size
        dist.all_gather_object(everyone, own)
        saving.save(self.root / name)
        losses["saving"] = [saving.each(step) for step in steps]
        resumed = Job(case, self.plan, self.rank, seed=99)
        resumed.load(self.root / name)
        mine = unequal(resumed.own(), own)
        losses["resumed"] = [resumed.each(step) for step in steps]
        other = Job(elsewhere, self.plan, self.rank, seed=99)
        other.load(self.root / name)
        if self.rank.is_main:
            self.converted(name, f"{name} converted")
        dist.barrier()
        converted = Job(case, self.plan, self.rank, seed=99)
        converted.load(self.root / f"{name} converted")
        whole = converted.own()
        losses["converted"] = [converted.each(step) for step in steps]
        first, second = everyone
        means = {key: (first[key] + second[key]) / 2 for key in first}
        return {
            "losses": losses,
            "apart": unequal(first, second),
            "mine": mine,
            "means": unequal(other.whole(), means),
            "converted": unequal(whole, means),
            "end": unequal(resumed.own(), undisturbed.own()),
        }

    def converted(self, name: str, to: str) -> None:
        saved, made = (
            step_folder(self.root / one / "checkpoints", BEFORE, 0) for one in (name, to)
        )
        made.path.parent.mkdir(parents=True)
        convert(saved.path, read_manifest(saved.path), made.path)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cast(key: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor if key.startswith("step/") else tensor.bfloat16().float()


def main(argv: Sequence[str]) -> int:
    out, root, jobs = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    with process_group(plan, rank):
        checks = Checks(plan, rank, Path(root))
        seen = {}
        for job in json.loads(jobs):
            what, name = job.pop("do"), job.pop("as")
            seen[name] = getattr(checks, what)(**job)
    Path(f"{out}-{rank.rank}.json").write_text(json.dumps(seen))
    return 0


if __name__ == "__main__":
    run(main)
