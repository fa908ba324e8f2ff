"""Run by each rank: takes engines apart, and writes what this rank saw.

Usage: engine_ranks.py OUT CHECK, where CHECK is one of the functions below; rank r writes
OUT-r.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import TypeAdapter
from support.oracle_ranks import CONTEXT, TEXT, objective
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.errors import UserError
from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.batch import Batch
from orchestrator.training.engines import build_engine
from orchestrator.training.engines.clipping import clip_gradients
from orchestrator.training.engines.loading import loading
from orchestrator.training.engines.sharding import check_backend, sharding_of
from orchestrator.training.engines.torch_engine import TorchEngine
from orchestrator.training.entrypoint import run
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from

Seen = dict[str, Any]


def planned(
    plan: TrainingPlan, strategy: dict[str, Any], training: dict[str, Any] | None = None
) -> TrainingPlan:
    return dataclasses.replace(
        plan,
        strategy=TypeAdapter[Strategy](Strategy).validate_python(strategy),
        training=Training.model_validate(training or {}),
    )


def built(plan: TrainingPlan, rank: Rank, made: Objective) -> TorchEngine:
    engine = build_engine(made, plan, rank, layout_of(plan, rank.rank))
    assert isinstance(engine, TorchEngine)
    return engine


def bytes_batch(rank: Rank) -> Batch:
    return Windows(TEXT, CONTEXT).take([4 * rank.rank + n for n in range(4)])


def locals_of(engine: TorchEngine) -> list[torch.Tensor]:
    return [
        p.to_local().clone() if isinstance(p, DTensor) else p.detach().clone()
        for p in engine.objective.parameters()
    ]


def refusal(action: Callable[[], object]) -> str | None:
    try:
        action()
    except UserError as error:
        return error.message
    return None


def overflow(plan: TrainingPlan, rank: Rank) -> Seen:
    """Rank 1 finds an infinity in its part of one gradient, at the second of three steps."""
    seen: Seen = {}
    for name, strategy, clip, fused in (
        ("full", {"name": "fsdp"}, 1.0, True),
        ("full unclipped", {"name": "fsdp"}, None, True),
        ("grad-op unfused", {"name": "fsdp", "sharding": "grad-op"}, 1.0, False),
        ("offload", {"name": "fsdp", "offload": True}, None, True),
    ):
        training = {
            "precision": "fp16-mixed",
            "clip_grad_norm": clip,
            "optimizer": {"name": "adamw", "lr": 1e-2, "fused": fused},
        }
        engine = built(planned(plan, strategy, training), rank, objective())
        batch = bytes_batch(rank)
        moved, scales = [], []
        for step in range(3):
            before = locals_of(engine)
            engine.gradients([batch], weight=2 * batch.weight)
            if step == 1 and rank.rank == 1:
                gradient = next(p.grad for p in engine.objective.parameters() if p.ndim == 2)
                assert isinstance(gradient, DTensor)
                gradient.to_local()[0, 0] = float("inf")
            engine.step(1e-2)
            after = locals_of(engine)
            moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
            scales.append(engine.scaler.get_scale())
        finite = all(bool(part.isfinite().all()) for part in locals_of(engine))
        seen[name] = {
            "moved": moved,
            "scales": scales,
            "finite": finite,
            "skipped": engine.skipped_steps(),
        }
    return seen


class Normed(Objective):
    """A batch norm, whose statistics each rank gathers from its own samples."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        targets: torch.Tensor,
        extras: dict[str, int],
        want_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        logits = self.model(inputs["x"])
        return F.cross_entropy(logits.float(), targets, reduction="sum"), logits


def batch_norm(plan: TrainingPlan, rank: Rank) -> Seen:
    seen: Seen = {}
    generator = torch.Generator().manual_seed(rank.rank)
    batch = Batch(
        {"x": torch.randn(16, 4, generator=generator) + rank.rank},
        torch.randint(0, 3, (16,), generator=generator),
        weight=16,
    )
    for strategy in ("ddp", "fsdp"):
        for precision in ("fp32", "bf16", "bf16-mixed"):
            engine = built(
                planned(plan, {"name": strategy}, {"precision": precision}), rank, Normed()
            )
            for _ in range(3):
                engine.gradients([batch], weight=32)
                engine.step(1e-2)
            same = Batch({"x": torch.ones(1, 4)}, torch.tensor([0]), weight=1)
            loss, _ = engine.evaluate(same)
            seen[f"{strategy} {precision}"] = loss.item()
    return seen


def meta(plan: TrainingPlan, rank: Rank) -> Seen:
    """Ranks other than 0 build on the meta device, and take rank 0's weights."""
    seen: Seen = {}
    for name, strategy, training in (
        ("full", {"name": "fsdp"}, {}),
        ("offload", {"name": "fsdp", "offload": True}, {}),
        ("mixed", {"name": "fsdp"}, {"precision": "bf16-mixed"}),
        ("tensor", {"name": "ddp", "tensor_parallel": 2}, {}),
    ):
        wanted = planned(plan, strategy, training)
        with loading(wanted, rank) as real:
            made = objective("llama", tied=True, layers=2, seed=rank.rank)
        is_meta = all(t.is_meta for t in (*made.parameters(), *made.buffers()))
        reference = objective("llama", tied=True, layers=2, seed=0)
        whole = reference.model.state_dict()
        engine = built(wanted, rank, made)
        tables = dict(reference.named_buffers())
        parameters = list(engine.objective.parameters())
        # Through `_local_tensor`: the storage behind a part must not be the whole's.
        held = sum(p._local_tensor.untyped_storage().nbytes() for p in parameters)
        tokens = bytes_batch(rank)
        engine.evaluate(tokens)
        cut = all(isinstance(p, DTensor) for p in engine.objective.parameters())
        state = engine.state()
        head = state.get("lm_head.weight")
        seen[name] = {
            "real": real,
            "meta": is_meta,
            "tables": all(torch.equal(t, tables[n]) for n, t in engine.objective.named_buffers()),
            "share": held / sum(4 * p.numel() for p in parameters),
            "names": list(state) == (list(whole) if rank.is_main else []),
            "equal": all(torch.equal(tensor, whole[n]) for n, tensor in state.items()),
            "tied": head is state.get("model.embed_tokens.weight"),
            "one": engine.objective.model.lm_head.weight
            is engine.objective.model.model.embed_tokens.weight,
            "describe": engine.describe(),
            "cut": cut,
            "random": torch.rand(1).item(),
        }
    for strategy, nodes in (("ddp", 1), ("fsdp", 1), ("fsdp", 2)):
        wanted = planned(plan, {"name": strategy, "pipeline_parallel": nodes})
        with loading(wanted, rank) as real:
            seen[f"{strategy} {nodes}"] = (real, torch.empty(1).is_meta)
    return seen


def state(plan: TrainingPlan, rank: Rank) -> Seen:
    """What `state` gives is a copy, and only what is wanted."""
    seen: Seen = {}
    for strategy in ("ddp", "fsdp"):
        engine = built(planned(plan, {"name": strategy}), rank, objective())
        before = engine.state(lambda name: name.startswith("blocks.0."))
        kept = {name: tensor.clone() for name, tensor in before.items()}
        batch = bytes_batch(rank)
        engine.gradients([batch], weight=2 * batch.weight)
        engine.step(1e-2)
        seen[strategy] = {
            "names": sorted({name.split(".")[0] for name in before}),
            "kept": all(torch.equal(before[name], kept[name]) for name in before),
        }
    return seen


class Collectives(TorchDispatchMode):
    """Counts them by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "c10d":
            name = func.name().removeprefix("c10d::").strip("_")
            self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def traffic(plan: TrainingPlan, rank: Rank) -> Seen:
    """Gradient reductions in a step of one micro batch, and in a step of four."""
    seen: Seen = {}
    alone = dataclasses.replace(plan, procs_per_node=1)
    for name, strategy, of in (
        ("full", {"name": "fsdp"}, plan),
        ("grad-op", {"name": "fsdp", "sharding": "grad-op"}, plan),
        ("copied", {"name": "fsdp", "sharding": "hybrid"}, alone),
    ):
        engine = built(planned(of, strategy), rank, objective())
        batch = bytes_batch(rank)
        engine.gradients([batch], weight=1.0)  # the first step also sets things up
        engine.step(1e-2)
        counts = []
        for micro_batches in (1, 4):
            with Collectives() as heard:
                engine.gradients([batch] * micro_batches, weight=1.0)
            engine.step(1e-2)
            counts.append(heard.counts)
        seen[name] = counts
    return seen


def mismatches(plan: TrainingPlan, rank: Rank) -> Seen:
    """What is said, on each rank, where the model or its sharding is not what was planned."""
    fsdp = planned(plan, {"name": "fsdp"})
    layout = layout_of(fsdp, rank.rank)
    frozen = objective()
    frozen.requires_grad_(False)
    scalar = objective()
    scalar.register_parameter("temperature", nn.Parameter(torch.tensor(1.0)))
    other = objective("llama", layers=1 + rank.rank)
    engine = built(fsdp, rank, objective())
    wide = dataclasses.replace(layout, shard=4)
    copied = dataclasses.replace(layout, shard=1, replicate=2)
    return {
        "frozen": refusal(lambda: built(fsdp, rank, frozen)),
        "scalar": refusal(lambda: built(fsdp, rank, scalar)),
        "different": refusal(lambda: built(fsdp, rank, other)),
        "wide": refusal(lambda: sharding_of(engine.objective, wide)),
        "copied": refusal(lambda: sharding_of(engine.objective, copied)),
        "plain": refusal(lambda: sharding_of(objective(), layout)),
        "right": refusal(lambda: sharding_of(engine.objective, layout)),
        "backend": refusal(lambda: check_backend(torch.device("cuda"))),
        "describe": engine.describe(),
        "ddp": built(planned(plan, {"name": "ddp"}), rank, objective()).describe(),
    }


def copied(tensor: torch.Tensor) -> torch.Tensor:
    if not isinstance(tensor, DTensor):
        return tensor.clone()
    return DTensor.from_local(  # DTensor's own clone adds partial sums up
        tensor.to_local().clone(),
        tensor.device_mesh,
        tensor.placements,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def clipping(plan: TrainingPlan, rank: Rank) -> Seen:
    """Four ranks hold the same gradients in many ways; two pipeline stages hold different ones."""
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
    line = init_device_mesh("cpu", (4,), mesh_dim_names=("shard",))
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (5, 3), (7,), (4, 8), (3, 2), (8, 8), (2, 2)]
    whole = [torch.randn(shape, generator=generator) for shape in shapes]
    spread = [
        whole[0],
        distribute_tensor(whole[1], line, [Shard(0)]),  # uneven, and empty on the last rank
        distribute_tensor(whole[2], line, [Shard(0)]),
        distribute_tensor(whole[3], grid, [Shard(0), Shard(1)]),
        distribute_tensor(whole[4], grid, [Replicate(), Shard(0)]),
        distribute_tensor(whole[5], grid["shard"], [Shard(1)]),
        DTensor.from_local(whole[6] / 2, grid, [Replicate(), Partial()]),
    ]

    def clipped(gradients: Sequence[torch.Tensor], largest: float, **how: Any) -> Seen:
        parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = copied(gradient)
        unused = nn.Parameter(torch.zeros(3))
        skipped = [parameters[n] for n in how.pop("elsewhere", [])]
        norm = clip_gradients([*parameters, unused], largest, elsewhere=skipped, **how)
        after = [
            p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad for p in parameters
        ]
        return {
            "norm": norm.item(),
            "sums": [g.double().abs().sum().item() for g in after if g is not None],
        }

    plain = [nn.Parameter(torch.zeros_like(g)) for g in whole]
    for parameter, gradient in zip(plain, whole, strict=True):
        parameter.grad = gradient.clone()
    norm = nn.utils.clip_grad_norm_(plain, 1.0)
    sums = [p.grad.double().abs().sum().item() for p in plain if p.grad is not None]
    # Stages: columns of the grid. The last gradient is tied, and both hold its sum.
    mine = [whole[n] for n in (range(3) if rank.rank % 2 == 0 else range(3, 6))] + [whole[6]]
    tied = {"elsewhere": [3]} if rank.rank % 2 else {}
    low = [gradient.bfloat16() for gradient in whole]
    infinite = [g.clone() for g in whole]
    infinite[0][0, 0] = float("inf")
    return {
        "expected": {"norm": norm.item(), "sums": sums},
        "spread": clipped(spread, 1.0),
        "plain": clipped(whole, 1.0),
        "small": clipped(spread, 1e6),
        "unclipped": [g.double().abs().sum().item() for g in whole],
        "stages": clipped(mine, 1.0, stages=grid.get_group("tensor"), **tied),
        "nothing": clip_gradients([], 1.0, stages=grid.get_group("tensor")).item(),
        "low": clipped(low, 1.0)["norm"],
        "low expected": torch.cat([g.float().flatten() for g in low]).norm().item(),
        "infinite": clipped(infinite, 1.0)["norm"],
    }


CHECKS = {
    check.__name__: check
    for check in (overflow, batch_norm, meta, state, traffic, mismatches, clipping)
}


def main(argv: Sequence[str]) -> int:
    out, *checks = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    prepare_arithmetic(plan.training)
    with process_group(plan, rank):
        seen = {name: CHECKS[name](plan, rank) for name in checks}
        dist.barrier()
    Path(f"{out}-{rank.rank}.json").write_text(json.dumps(seen))
    return 0


if __name__ == "__main__":
    run(main)
