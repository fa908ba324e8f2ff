"""Whether DeepSpeed set up what was planned: it falls back in silence where it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from orchestrator.training.engines.zero_config import computed_in, zero_strategy
from orchestrator.training.errors import PlanMismatch
from orchestrator.training.layout import Layout
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank


def check_engine(engine: Any, plan: TrainingPlan, rank: Rank, layout: Layout) -> None:
    """`engine` is a DeepSpeedEngine. Raise PlanMismatch naming the first fact that differs."""
    for what, planned, found in _facts(engine, plan, rank, layout):
        if planned != found:
            raise PlanMismatch(
                f"rank {rank.rank}: the plan's {what} is {planned}, and DeepSpeed's is {found}",
                hint="look for settings of DeepSpeed outside the spec, such as DS_* in the "
                "environment",
            )


def describe_engine(engine: Any) -> str:
    """The same facts in words."""
    parameters = list(engine.module.parameters())
    cut = sum(_is_cut(p, engine.dp_world_size) for p in parameters)
    masters = master_weights(engine)
    places = "/".join(sorted({tensor.device.type for tensor in masters}))
    held = sum(tensor.numel() for tensor in masters)
    return (
        f"zero stage {int(engine.zero_optimization_stage())} over {engine.dp_world_size} ranks "
        f"({cut} of {len(parameters)} parameters cut, {type(engine.basic_optimizer).__name__} "
        f"over {held:,} elements a rank on {places})"
    )


def master_weights(engine: Any) -> Sequence[torch.Tensor]:
    """This rank's flat parts of what the optimizer updates."""
    # Under stages 1 and 2, stage 3, and stage 1 with float32 accumulation of bf16.
    for name in (
        "single_partition_of_fp32_groups",
        "fp32_partitioned_groups_flat",
        "fp32_groups_flat_partition",
    ):
        if hasattr(engine.optimizer, name):
            found: Sequence[torch.Tensor] = getattr(engine.optimizer, name)
            return found
    return []


def _facts(
    engine: Any, plan: TrainingPlan, rank: Rank, layout: Layout
) -> Iterator[tuple[str, object, object]]:
    strategy, training = zero_strategy(plan), plan.training
    yield "ZeRO stage", strategy.stage, int(engine.zero_optimization_stage())
    yield "number of data-parallel ranks", layout.data_size, engine.dp_world_size
    yield "micro batch", training.micro_batch, engine.train_micro_batch_size_per_gpu()
    yield "accumulation", training.accumulation, engine.gradient_accumulation_steps()
    yield "largest gradient norm", training.clip_grad_norm or 0.0, engine.gradient_clipping()
    yield "device", rank.device.type, torch.device(engine.device).type
    backend = "nccl" if rank.device.type == "cuda" else "gloo"
    yield "communication backend", backend, _backend(engine, rank)
    yield "optimizer", _OPTIMIZERS[training.optimizer.name], type(engine.basic_optimizer).__name__
    formats = {p.dtype for p in engine.module.parameters() if p.is_floating_point()}
    yield "format of the parameters", {computed_in(training)}, formats
    masters = master_weights(engine)
    place = "cpu" if strategy.offload != "none" else rank.device.type
    yield "place of the optimizer state", {place}, {tensor.device.type for tensor in masters}
    yield "cut of the optimizer state", layout.data_size, _cut(engine, masters, layout)
    if strategy.stage == 3:
        whole = sum(not _is_cut(p, layout.data_size) for p in engine.module.parameters())
        yield "number of parameters left whole", 0, whole


_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adamw-8bit": "AdamW8bit"}


def _backend(engine: Any, rank: Rank) -> str:
    group = engine.data_parallel_group
    if group is None:
        group = dist.group.WORLD
    return str(group._get_backend(rank.device).name())


def _cut(engine: Any, masters: Sequence[torch.Tensor], layout: Layout) -> int:
    """Into how many parts the optimizer state is cut: the planned number, if all parts together
    hold every trainable element once, but for the padding that makes them equally long."""
    trainable = [p for p in engine.module.parameters() if p.requires_grad]
    numel = sum(_numel(p) for p in trainable)
    held = sum(tensor.numel() for tensor in masters)
    padding = _PADDING * layout.data_size * len(trainable)
    if numel <= held * layout.data_size <= numel + padding:
        return layout.data_size
    return round(numel / max(1, held))


_PADDING = 8  # elements a rank and parameter; DeepSpeed aligns to 4


def _numel(parameter: nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _is_cut(parameter: nn.Parameter, ranks: int) -> bool:
    part = getattr(parameter, "ds_tensor", None)
    return part is not None and part.ds_numel == -(-_numel(parameter) // ranks)
