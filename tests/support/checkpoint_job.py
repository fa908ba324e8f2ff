"""A small training that saves and loads as the loop does, with what it holds to be compared."""

from __future__ import annotations

import dataclasses
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
from orchestrator.checkpoints.manifest import FileEntry, Manifest, read_manifest
from orchestrator.checkpoints.names import step_folder
from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint.files import Reader, copied, write_rank_file
from orchestrator.training.checkpoint.load import load
from orchestrator.training.engines import build_engine
from orchestrator.training.engines.torch_engine import TorchEngine
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank
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
