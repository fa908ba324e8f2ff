"""Parameters, gradients and optimizer state are cut over the ranks (PyTorch FSDP2).

Zhao et al. 2023; the idea is ZeRO's (Rajbhandari et al. 2020), and hybrid sharding is HSDP.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _NormBase

from orchestrator.spec.strategy import Fsdp
from orchestrator.training.agreement import together
from orchestrator.training.batch import Batch
from orchestrator.training.engines.layers import layers_of
from orchestrator.training.engines.prepare import prepare_layers
from orchestrator.training.engines.sharding import Sharding, check_backend, sharding_of
from orchestrator.training.engines.torch_engine import TorchEngine, statistics_of
from orchestrator.training.engines.weights import spread_weights, take_weights
from orchestrator.training.errors import NotSupported
from orchestrator.training.layout import Layout
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.precision import cast_parameters, compute_dtype


class FsdpEngine(TorchEngine):
    """Sharded data parallelism, alone or with tensor parallelism, and DDP with the latter."""

    sharding: Sharding
    sharded: list[FSDPModule]
    statistics: list[torch.Tensor]
    synchronises = True
    """Whether the next backward pass reduces gradients."""

    def wrap(self, objective: Objective) -> nn.Module:
        cast_parameters(objective, self.settings)
        with together(self.rank):
            refuse_uncuttable(objective)
        mesh = self.layout.device_mesh(self.rank.device.type)
        weights = take_weights(objective, self.rank)
        if self.layout.tensor > 1:
            from orchestrator.training.engines.tensor import parallelize

            parallelize(objective, mesh["tensor"], sequence=self.plan.strategy.sequence_parallel)
        prepare_layers(objective, self.settings)
        shard(objective, self.plan, self.layout, mesh)
        spread_weights(objective, weights, self.rank.device, host=_offloads(self.plan))
        with together(self.rank):
            check_backend(self.rank.device)
            self.sharding = sharding_of(objective, self.layout)
        self.sharded = [module for module in objective.modules() if isinstance(module, FSDPModule)]
        self.statistics = statistics_of(objective)
        return objective

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()  # parameters arrive in the lower precision already

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Gradients travel in the last micro batch of a step.

        Until then they lie whole on every rank, 4 bytes a parameter; so, where copies are held
        too, each group of ranks adds up its own at once and only the groups wait for each other.
        Offloading, which is for want of memory, always reduces.
        """
        if last != self.synchronises:
            self.synchronises = last
            offloads = _offloads(self.plan)
            for module in self.sharded:
                module.set_is_last_backward(last or offloads)
                if self.layout.replicate > 1:
                    module.set_requires_all_reduce(last, recurse=False)
                elif not offloads:
                    module.set_requires_gradient_sync(last, recurse=False)
                if not _reshards(self.plan, self.layout):
                    # Parameters stay whole between forward and backward, so here too.
                    module.set_reshard_after_backward(last, recurse=False)
        return nullcontext()

    @torch.no_grad()
    def evaluate(
        self, batch: Batch, *, want_logits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        for statistics in self.statistics:
            dist.broadcast(statistics, src=0)  # as DDP does; each rank has seen its own samples
        result = super().evaluate(batch, want_logits=want_logits)
        for module in self.sharded:
            module.reshard()  # what stays whole after forward waits for a backward pass
        return result

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, DTensor):
            return tensor.detach()
        full: torch.Tensor = tensor.detach().to(self.rank.device).full_tensor()  # type: ignore[attr-defined]
        return full

    def describe(self) -> str:
        strategy = self.plan.strategy
        name = f"fsdp {strategy.sharding}" if isinstance(strategy, Fsdp) else strategy.name
        offloaded = ", in host memory" if _offloads(self.plan) else ""
        return f"{name}: {self.sharding}{offloaded}"


def shard(module: nn.Module, plan: TrainingPlan, layout: Layout, mesh: DeviceMesh) -> None:
    """Cut a module's parameters over the data ranks, in place: each layer, then the rest.

    `mesh` is the layout's; parameters may be on the meta device, and DTensors on its tensor axis.
    Gradients become the mean over the data ranks, reduced in float32. `module` is what is called
    forward: its floating-point inputs are cast to the precision's.
    """
    data = mesh["replicate", "shard"] if layout.replicate > 1 else mesh["shard"]
    low = compute_dtype(plan.training)
    policy = precision_policy(low)
    # Statistics over a batch need float32, and so do the parameters beside them.
    norms = [part for part in module.modules() if isinstance(part, _NormBase)]
    special = norms if low != torch.float32 else []
    offload = _offload_policy(plan, mesh)
    for part in special:
        whole = MixedPrecisionPolicy(torch.float32, torch.float32, output_dtype=low)
        fully_shard(part, mesh=data, mp_policy=whole, offload_policy=offload)
    reshards = _reshards(plan, layout)
    for layer in layers_of(module):
        fully_shard(
            layer,
            mesh=data,
            mp_policy=policy,
            offload_policy=offload,
            reshard_after_forward=reshards,
        )
    # The rest holds the output layer, which backward begins with: freeing it in between would
    # gather it twice and save nothing at the peak.
    if isinstance(module, Objective):
        policy = precision_policy(low, output=torch.float32)
    fully_shard(
        module, mesh=data, mp_policy=policy, offload_policy=offload, reshard_after_forward=False
    )


def precision_policy(low: torch.dtype, output: torch.dtype | None = None) -> MixedPrecisionPolicy:
    """Parameters arrive, and layers compute, in `low`; gradients are reduced in float32."""
    if low == torch.float32:
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, output_dtype=output)


def refuse_uncuttable(module: nn.Module) -> None:
    """Raise NotSupported for a parameter that fully_shard cannot cut."""
    for name, parameter in module.named_parameters():
        if parameter.ndim == 0:
            raise NotSupported(
                f"strategy fsdp cuts parameters along their first dimension, and {name} is a "
                "single number",
                hint="train this model with strategy ddp",
            )
        if not parameter.is_floating_point():
            raise NotSupported(
                f"strategy fsdp cannot cut the quantised parameter {name}",
                hint="use strategy ddp, or training.lora.quantize: none",
            )


def _reshards(plan: TrainingPlan, layout: Layout) -> bool:
    """Whether a layer is freed between its forward and its backward pass.

    Not in a pipeline, where it would be gathered anew for each micro batch of a step.
    """
    strategy = plan.strategy
    keeps = isinstance(strategy, Fsdp) and strategy.sharding == "grad-op"
    return layout.shard > 1 and layout.pipeline == 1 and not keeps


def _offloads(plan: TrainingPlan) -> bool:
    return isinstance(plan.strategy, Fsdp) and plan.strategy.offload


def _offload_policy(plan: TrainingPlan, mesh: DeviceMesh) -> OffloadPolicy:
    if not _offloads(plan):
        return OffloadPolicy()
    return CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda")
