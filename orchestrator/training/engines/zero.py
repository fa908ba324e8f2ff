"""Optimizer state, gradients and parameters cut over the ranks by DeepSpeed ZeRO."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint.pieces import Piece
from orchestrator.training.engines.base import Engine
from orchestrator.training.engines.prepare import prepare_layers
from orchestrator.training.engines.zero_checks import check_engine, describe_engine
from orchestrator.training.engines.zero_config import (
    computed_in,
    refuse_eight_bit,
    refuse_wrong_pairs,
    zero_config,
    zero_precision,
    zero_strategy,
)
from orchestrator.training.engines.zero_import import import_deepspeed
from orchestrator.training.engines.zero_init import (
    cast_whole_parameters,
    cut_parameters,
    zero_init,
)
from orchestrator.training.engines.zero_pieces import materialise_zero_state, zero_pieces
from orchestrator.training.engines.zero_scalars import set_zero_scalars, zero_scalars
from orchestrator.training.engines.zero_state import refresh_parameters, whole_tensor
from orchestrator.training.layout import Layout
from orchestrator.training.objective import Objective, apply
from orchestrator.training.optim import build_optimizer
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank

__all__ = ["ZeroEngine", "zero_init"]


class ZeroEngine(Engine):
    """ZeRO stage 1, 2 or 3 (Rajbhandari et al. 2020), with offload (Ren et al. 2021).

    With a mixed precision DeepSpeed computes in the low one throughout, and keeps float32 master
    weights, cut over the ranks, in its optimizer. fp16 uses DeepSpeed's own dynamic loss scaling.
    """

    def __init__(
        self, objective: Objective, plan: TrainingPlan, rank: Rank, layout: Layout
    ) -> None:
        """Takes the objective over: it is moved, cast, cut and made equal to rank 0's.

        Raises NotSupported for pairs of settings that DeepSpeed cannot do, and PlanMismatch
        where what it set up is not what was planned.
        """
        refuse_wrong_pairs(plan)
        deepspeed = import_deepspeed(plan)
        self.plan, self.rank, self.layout = plan, rank, layout
        self.unit = objective.unit
        self.objective = objective
        config = zero_config(plan)
        # DeepSpeed reads it; alone, without a launcher, nobody has set it.
        os.environ.setdefault("LOCAL_RANK", str(rank.local_rank))
        cast_whole_parameters(objective, plan.training)
        if zero_strategy(plan).stage == 3:
            deepspeed.init_distributed()  # takes over the group that is there
            cut_parameters(objective, config, rank.device)
        prepare_layers(objective, plan.training)
        self.engine, *_ = deepspeed.initialize(
            model=objective,
            optimizer=build_optimizer(objective, plan.training.optimizer),
            config=config,
        )
        check_engine(self.engine, plan, rank, layout)

    def gradients(self, batches: Sequence[Batch], weight: float) -> torch.Tensor:
        if len(batches) > self.plan.training.accumulation:
            raise ValueError(
                f"{len(batches)} micro batches, and DeepSpeed was told "
                f"{self.plan.training.accumulation}"
            )
        # DeepSpeed averages over the data ranks, and what is wanted is a sum over them.
        scale = self.layout.data_size / weight
        total = torch.zeros((), device=self.rank.device)
        for number, batch in enumerate(batches):
            self.engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
            loss, _ = apply(self.engine, self._placed(batch))
            # The weight counts all micro batches: DeepSpeed must not divide by their number.
            self.engine.backward(loss * scale, scale_wrt_gas=False)
            total += loss.detach()
        return total

    def step(self, lr: float) -> torch.Tensor | None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()
        if self.plan.training.clip_grad_norm is None:
            return None
        # A float (inf) where fp16 gradients overflowed and the step was skipped.
        return torch.as_tensor(self.engine.get_global_grad_norm(), device=self.rank.device)

    def left_out_overflow(self) -> bool:
        return not self.engine.was_step_applied()

    def skipped_steps(self) -> int:
        return int(self.engine.skipped_steps)

    @torch.no_grad()
    def evaluate(
        self, batch: Batch, *, want_logits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.engine.eval()
        try:
            return apply(self.engine, self._placed(batch), want_logits=want_logits)
        finally:
            self.engine.train()

    def state(self, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        mixed = zero_precision(self.plan.training).endswith("mixed")
        for name, tensor in self.objective.model.state_dict(keep_vars=True).items():
            if wanted(name):
                whole = whole_tensor(tensor, master=mixed)
                if self.rank.is_main:
                    found[name] = whole.to("cpu", copy=True)
        return found

    def pieces(self) -> list[Piece]:
        refuse_eight_bit(self.plan.training)
        materialise_zero_state(self.engine)
        return list(zero_pieces(self.engine, self.objective.model, self.rank))

    def scalars(self) -> dict[str, Any]:
        return zero_scalars(self.engine)

    def restore(self, fill: Callable[[Piece], None], scalars: Mapping[str, Any]) -> None:
        for piece in self.pieces():
            fill(piece)
        set_zero_scalars(self.engine, scalars)
        refresh_parameters(self.engine)

    def describe(self) -> str:
        return describe_engine(self.engine)

    def _placed(self, batch: Batch) -> Batch:
        """On the device, and real numbers (pixels, say) in the format of the parameters."""
        batch = batch.to(self.rank.device)
        dtype = computed_in(self.plan.training)
        return replace(
            batch,
            inputs={
                name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                for name, tensor in batch.inputs.items()
            },
        )
