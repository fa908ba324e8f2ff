"""Run by each rank: trains, saves, loads what other strategies and world sizes saved, trains on.

Usage: checkpoint_ranks.py OUT ROOT JOBS, where ROOT is a folder of checkpoints by name and JOBS a
JSON list, done in order. A job is one of the functions in JOBS below with its arguments, and
`"as"`, the name of what it gives; rank r writes OUT-r.json. The global batch has 8 samples,
whatever the world size.
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
import torch.nn.functional as F
from pydantic import TypeAdapter
from support.oracle_ranks import CONTEXT, TEXT, objective
from torch import nn
from torch.distributed.tensor import DTensor

from orchestrator.checkpoints.commit import begin, commit
from orchestrator.checkpoints.convert import convert
from orchestrator.checkpoints.manifest import FileEntry, Manifest, read_manifest
from orchestrator.checkpoints.names import step_folder
from orchestrator.checkpoints.regions import Box, Span
from orchestrator.errors import UserError
from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint.files import Copied, Reader, copied, write_rank_file
from orchestrator.training.checkpoint.load import load
from orchestrator.training.checkpoint.pieces import Piece
from orchestrator.training.engines import build_engine
from orchestrator.training.engines.torch_engine import TorchEngine
from orchestrator.training.entrypoint import run
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.sampling import samples_of

GLOBAL_BATCH = 8
BEFORE, AFTER = 3, 5
"""Steps up to the save, and from it on."""
LR = 5e-3
Case = dict[str, Any]
Seen = dict[str, Any]


class Odd(Objective):
    """Sizes that no world divides, rows fewer than ranks, and statistics over a batch."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Embedding(256, 5), nn.Linear(5, 7), nn.BatchNorm1d(7)))
        self.model.append(nn.Linear(7, 3, bias=False))

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        targets: torch.Tensor,
        extras: dict[str, int],
        want_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits = self.model(inputs["tokens"].flatten())
        return F.cross_entropy(logits, targets.flatten() % 3, reduction="sum"), logits


class Job:
    """An engine with its place in the data."""

    def __init__(self, case: Case, plan: TrainingPlan, rank: Rank, *, seed: int = 1234) -> None:
        self.rank = rank
        seed = case.get("seed", seed)
        plan = dataclasses.replace(
            plan,
            strategy=TypeAdapter[Strategy](Strategy).validate_python(
                case.get("strategy", {"name": "ddp"})
            ),
            procs_per_node=case.get("procs_per_node", plan.procs_per_node),
        )
        self.layout = layout_of(plan, rank.rank)
        whole_share = GLOBAL_BATCH // self.layout.data_size
        micro = whole_share // 2 if self.layout.pipeline > 1 else whole_share
        settings = {
            "seed": seed,
            "micro_batch": micro,
            "accumulation": GLOBAL_BATCH // (micro * self.layout.data_size),
            "optimizer": {"name": "adamw", "lr": LR, "weight_decay": 1.0},
        }
        self.training = Training.model_validate(settings | case.get("training", {}))
        self.plan = dataclasses.replace(plan, training=self.training, global_batch=GLOBAL_BATCH)
        prepare_arithmetic(self.training)
        options = dict(case.get("model", {"kind": "llama", "layers": 2, "tied": True}))
        if options["kind"] == "odd":
            made: Objective = Odd()
        else:
            made = objective(**options, seed=seed)
        if case.get("beside"):
            made.register_parameter("temperature", nn.Parameter(torch.ones(4)))
        engine = build_engine(made, self.plan, rank, self.layout)
        assert isinstance(engine, TorchEngine)
        self.engine = engine
        self.done = 0
        self.tied = options.get("tied", False)
        self.idle, self.overflow = case.get("idle"), case.get("overflow")

    def train(self, steps: int) -> list[float]:
        """Losses of the next steps: the means over the global batch."""
        return [sum(self.each(step)) for step in range(self.done, self.done + steps)]

    def each(self, step: int) -> list[float]:
        """Each rank's share of the step's loss."""
        self.gradients(step)
        self.disturb(step)
        self.engine.step(LR)
        self.done = step + 1
        everyone = [torch.zeros(()) for _ in range(self.rank.world_size)]
        dist.all_gather(everyone, self.loss)
        return [loss.item() / (GLOBAL_BATCH * CONTEXT) for loss in everyone]

    def gradients(self, step: int) -> None:
        self.loss = self.engine.gradients(self.batches(step), GLOBAL_BATCH * CONTEXT)

    def batches(self, step: int) -> list[Batch]:
        data = Windows(TEXT, CONTEXT)
        taken = [
            samples_of(
                step,
                number,
                self.layout.data_rank,
                micro_batch=self.training.micro_batch,
                accumulation=self.training.accumulation,
                data_size=self.layout.data_size,
            )
            for number in range(self.training.accumulation)
        ]
        return [data.take(samples) for samples in taken]

    def disturb(self, step: int) -> None:
        """`idle`: some parameters have no gradient in the second step. `overflow`: the gradient
        is infinite there."""
        if step != 1:
            return
        for name, parameter in self.engine.objective.model.named_parameters():
            if self.idle is not None and self.idle in name:
                parameter.grad = None
            if self.overflow and parameter.grad is not None:
                parameter.grad.mul_(float("inf"))

    def save(self, folder: Path) -> None:
        """As the loop does, without its threads."""
        step = step_folder(folder / "checkpoints", self.done, 0)
        parts = copied(self.engine.pieces())
        scalars = self.engine.scalars()
        if self.rank.is_main:
            begin(step)
        dist.barrier()
        mine = write_rank_file(step.path, self.rank.rank, parts, {}, 0o600)
        files: list[Any] = [None] * self.rank.world_size
        dist.all_gather_object(files, mine)
        if self.rank.is_main:
            commit(step.path, self.manifest(files, scalars), folder / "attempts")
        dist.barrier()

    def manifest(self, files: Sequence[FileEntry], scalars: Case) -> Manifest:
        return Manifest(
            run_id="any",
            step=self.done,
            attempt=0,
            created=0.0,
            world_size=self.rank.world_size,
            strategy=self.plan.strategy.model_dump(),
            layout={},
            files=tuple(files),
            state={"engine": scalars},
        )

    def load(self, folder: Path, *, without: str | None = None) -> None:
        """`without`: pieces of this kind are zero afterwards."""
        step = step_folder(folder / "checkpoints", BEFORE, 0)
        manifest = read_manifest(step.path)
        near = self.rank.rank / self.rank.world_size
        with closing(Reader(step.path, manifest, near=near)) as reader:
            load(self.engine, reader, manifest.state["engine"], self.rank)
        for piece in self.engine.pieces():
            if without is not None and piece.key.startswith(f"{without}/"):
                piece.tensor.zero_()
        self.done = BEFORE

    def own(self) -> dict[str, torch.Tensor]:
        """This rank's parameters, buffers, moments and counts of steps, each in full, read off
        the engine's own model and optimizer."""
        found: dict[str, torch.Tensor] = {}
        for name, tensor in self.engine.objective.model.state_dict(keep_vars=True).items():
            trained = not isinstance(tensor, nn.Parameter) or tensor.requires_grad
            if self.tied and name == "lm_head.weight":
                name = "model.embed_tokens.weight"
            states = self.engine.optimizer.state.get(tensor, {})
            for kind, value in (("model", tensor), *states.items()):
                full = value.full_tensor() if isinstance(value, DTensor) else value
                if trained:
                    found[f"{kind}/{name}"] = torch.as_tensor(full).detach().float().clone()
        return found

    def whole(self) -> dict[str, torch.Tensor]:
        """The same of all ranks, on each; what two of them have must be equal, but for rank 0's
        statistics of its samples."""
        everyone: list[Any] = [None] * self.rank.world_size
        dist.all_gather_object(everyone, self.own())
        found: dict[str, torch.Tensor] = {}
        for some in everyone:
            for key, tensor in some.items():
                first = found.setdefault(key, tensor)
                assert "running" in key or torch.equal(first, tensor), key
        return found


def unequal(found: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> list[str]:
    assert len(saved) > 3
    keys = sorted(found.keys() | saved.keys())
    return [k for k in keys if not (k in found and k in saved and torch.equal(found[k], saved[k]))]


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
