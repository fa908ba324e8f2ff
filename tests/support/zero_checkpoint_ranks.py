"""Run by each rank: trains, saves, loads under another strategy, and trains on.

Usage: zero_checkpoint_ranks.py OUT.pt CHECKPOINTS CASES, where CHECKPOINTS is a folder and CASES a
JSON object of cases by name; all saves of a launch come before its loads. A case is
`{"strategy": {...}, "training": {...}, "model": {...}, "deepspeed": {...}}`, all optional, and
either saves under its name or has `"from"`, the name of the save to load, and perhaps `"without"`:
which kinds of tensors are lost on the way. A save may say `"early"`, to look at the pieces before
the first step too, and `"overflows"`, how many fp16 overflows come before it. The global batch has
8 samples, whatever the world size.

A model has the options of `zero_ranks.model`, and `odd`, which makes another one. `"deepspeed"` has
`persist`, which keeps small parameters gathered under ZeRO 3, as DeepSpeed does in production (the
models here have no others), and `split`, which makes it cut its flat tensors, as it cuts huge ones.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from support.oracle_ranks import CONTEXT, TEXT
from support.zero_ranks import allow_emulated_fp16, cut_small_parameters_too, model, strategy_of
from torch import nn

from orchestrator.checkpoints.commit import begin, commit
from orchestrator.checkpoints.manifest import FileEntry, Manifest, read_manifest
from orchestrator.checkpoints.names import committed_folders, step_folder
from orchestrator.checkpoints.regions import runs
from orchestrator.spec.training import Training
from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint.files import Reader, copied, write_rank_file
from orchestrator.training.checkpoint.load import load as load_checkpoint
from orchestrator.training.checkpoint.pieces import Piece
from orchestrator.training.engines import build_engine, zero_config
from orchestrator.training.engines.base import Engine
from orchestrator.training.engines.loading import loading
from orchestrator.training.entrypoint import run
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.sampling import samples_of

GLOBAL_BATCH, MICRO_BATCH = 8, 2
BEFORE, AFTER = 3, 5
"""Steps up to the save, and from it on."""
LR = 2e-3

Case = dict[str, Any]


class Odd(ByteTransformer):
    """Has parameters that no number of ranks divides, or that not every rank has a part of, and a
    buffer that is another on each rank."""

    def __init__(self) -> None:
        super().__init__(context=CONTEXT, dim=16, layers=1, heads=2)
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(255))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean += tokens.float().mean()
        logits: torch.Tensor = super().forward(tokens) * self.scale
        return logits + nn.functional.pad(self.bias, (0, 1))


def objective(plan: TrainingPlan, rank: Rank, *, odd: bool = False, **options: Any) -> Objective:
    if not odd:
        return model(plan, rank, **options)
    with loading(plan, rank):
        return NextByte(Odd())


class Trained:
    """An engine with its place in the data."""

    def __init__(self, case: Case, plan: TrainingPlan, rank: Rank) -> None:
        settings = {
            "micro_batch": MICRO_BATCH,
            "accumulation": GLOBAL_BATCH // (MICRO_BATCH * plan.world_size),
            "optimizer": {"name": "adamw", "lr": LR, "weight_decay": 1.0},
            "clip_grad_norm": 1.0,
        }
        self.training = Training.model_validate(settings | case.get("training", {}))
        strategy = strategy_of(case.get("strategy", {"name": "ddp"}))
        self.plan = dataclasses.replace(
            plan, training=self.training, strategy=strategy, global_batch=GLOBAL_BATCH
        )
        self.rank, self.layout = rank, layout_of(self.plan, rank.rank)
        configure(**case.get("deepspeed", {}))
        prepare_arithmetic(self.training)
        built = objective(self.plan, rank, **case.get("model", {}))
        self.engine = build_engine(built, self.plan, rank, self.layout)

    def losses(self, first: int, count: int) -> list[float]:
        return [self._step(step) for step in range(first, first + count)]

    def batches(self, step: int) -> list[Batch]:
        data = Windows(TEXT, CONTEXT)
        taken = [
            samples_of(
                step,
                micro,
                self.layout.data_rank,
                micro_batch=self.training.micro_batch,
                accumulation=self.training.accumulation,
                data_size=self.layout.data_size,
            )
            for micro in range(self.training.accumulation)
        ]
        return [data.take(samples) for samples in taken]

    def _step(self, step: int) -> float:
        weight = GLOBAL_BATCH * CONTEXT
        loss = self.engine.gradients(self.batches(step), weight)
        self.engine.step(LR)
        dist.all_reduce(loss)
        return float(loss) / weight

    def seen(self) -> Case:
        """On rank 0: every tensor whole, twice: out of the pieces, and as the engine gathers its
        parameters itself."""
        return {
            "tensors": whole(self.engine.pieces(), self.rank),
            "state": self.engine.state(),
            "scalars": self.engine.scalars(),
        }


_plain_config = zero_config.deepspeed_config


def configure(*, persist: bool = False, split: bool = False) -> None:
    zero_config.deepspeed_config = _plain_config
    if not persist:
        cut_small_parameters_too()
    chosen = zero_config.deepspeed_config

    def config(facts: Any) -> dict[str, Any]:
        made = chosen(facts)
        if split:
            made["zero_optimization"]["sub_group_size"] = 500
        return made

    zero_config.deepspeed_config = config


def whole(pieces: Sequence[Piece], rank: Rank) -> dict[str, torch.Tensor]:
    """What all ranks would write, put together on rank 0: each element once."""
    mine = [(part.key, part.shape, part.region, part.tensor) for part in copied(pieces)]
    everyone: list[Any] | None = [None] * rank.world_size if rank.is_main else None
    dist.gather_object(mine, everyone)
    found: dict[str, torch.Tensor] = {}
    times: dict[str, torch.Tensor] = {}
    for key, shape, region, tensor in (part for some in everyone or [] for part in some):
        target = found.setdefault(key, torch.empty(shape, dtype=tensor.dtype)).view(-1)
        count = times.setdefault(key, torch.zeros(target.numel()))
        for start, within, length in runs(region, shape):
            target[start : start + length] = tensor[within : within + length]
            count[start : start + length] += 1
    assert all((count == 1).all() for count in times.values())
    return found


def as_deepspeed_gathers(engine: Engine) -> dict[str, torch.Tensor]:
    """Adam's tensors, whole on every rank, by the keys of the pieces; {} for what is not ZeRO."""
    from deepspeed.utils import safe_get_full_optimizer_state

    if not hasattr(engine, "engine") or isinstance(engine.engine.basic_optimizer, torch.optim.SGD):
        return {}
    optimizer = engine.engine.optimizer
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        # It links after the first group's first step, when the second group has no state yet.
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()
    found = {}
    for name, parameter in engine.objective.model.named_parameters():
        for state in ("exp_avg", "exp_avg_sq") if parameter.requires_grad else ():
            tensor = safe_get_full_optimizer_state(parameter, state)
            found[f"{state}/{name}"] = tensor.cpu().view(
                getattr(parameter, "ds_shape", tensor.shape)
            )
    return found


def save(trained: Trained, folder: Path) -> None:
    """Commit a checkpoint after BEFORE steps, as the loop does, but waiting for it."""
    target = step_folder(folder, BEFORE, 0)
    if trained.rank.is_main:
        begin(target)
    dist.barrier()
    parts = copied(trained.engine.pieces())
    mine = write_rank_file(target.path, trained.rank.rank, parts, {}, 0o600)
    files: list[FileEntry | None] = [None] * trained.rank.world_size
    dist.all_gather_object(files, mine)
    if trained.rank.is_main:
        manifest = Manifest(
            run_id=folder.name,
            step=BEFORE,
            attempt=0,
            created=0.0,
            world_size=trained.rank.world_size,
            strategy=trained.plan.strategy.model_dump(),
            layout={},
            files=tuple(file for file in files if file is not None),
            state={"engine": trained.engine.scalars()},
        )
        commit(target.path, manifest, folder / "attempts")
    dist.barrier()


def load(trained: Trained, folder: Path, without: Sequence[str]) -> None:
    trained.engine.settle(lambda: trained.batches(BEFORE))
    (committed,) = committed_folders(folder)
    manifest = read_manifest(committed.path)
    with closing(Forgetful(committed.path, manifest)) as reader:
        reader.without = without
        load_checkpoint(trained.engine, reader, manifest.state["engine"], trained.rank)


class Forgetful(Reader):
    """Fills some kinds of tensors with zeros."""

    without: Sequence[str] = ()

    def fill(self, piece: Piece) -> None:
        super().fill(piece)
        if piece.key.partition("/")[0] in self.without:
            piece.tensor.zero_()


def saved(name: str, case: Case, plan: TrainingPlan, rank: Rank, checkpoints: Path) -> Case:
    trained = Trained(case, plan, rank)
    if case.get("early"):
        trained.engine.pieces()
    before = trained.losses(0, BEFORE)
    for _ in range(case.get("overflows", 0)):
        trained.engine.engine.optimizer.loss_scaler.update_scale(True)
    save(trained, checkpoints / name)
    seen = trained.seen() | {"gathered": as_deepspeed_gathers(trained.engine)}
    return seen | {"before": before, "losses": trained.losses(BEFORE, AFTER)}


def loaded(case: Case, plan: TrainingPlan, rank: Rank, checkpoints: Path) -> Case:
    trained = Trained(case, plan, rank)
    load(trained, checkpoints / case["from"], case.get("without", ()))
    return trained.seen() | {"losses": trained.losses(BEFORE, AFTER)}


def main(argv: Sequence[str]) -> int:
    out, folder, text = argv
    checkpoints = Path(folder)
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    allow_emulated_fp16()
    cases: dict[str, Case] = json.loads(text)
    found: dict[str, Case] = {}
    with process_group(plan, rank):
        for name, case in sorted(cases.items(), key=lambda item: "from" in item[1]):
            if "from" in case:
                found[name] = loaded(case, plan, rank, checkpoints)
            else:
                found[name] = saved(name, case, plan, rank, checkpoints)
            if len(found) == 1:
                # DeepSpeed collects garbage for each engine, which is slow among all imports.
                gc.collect()
                gc.freeze()
    if rank.is_main:
        torch.save(found, out)
    return 0


if __name__ == "__main__":
    run(main)
