"""Pipeline parallelism: each group of layers on ranks of its own (Huang et al. 2019, GPipe)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from orchestrator.spec.strategy import Fsdp
from orchestrator.training.agreement import together
from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint.pieces import Piece
from orchestrator.training.engines.clipping import clip_gradients
from orchestrator.training.engines.decoder import Decoder, decoder_of
from orchestrator.training.engines.fsdp import refuse_uncuttable, shard
from orchestrator.training.engines.pipeline_schedule import Schedules
from orchestrator.training.engines.pipeline_stage import Stage, cut, layer_counts
from orchestrator.training.engines.pipeline_state import UncutModel
from orchestrator.training.engines.pipeline_tied import TiedCopies
from orchestrator.training.engines.prepare import prepare_layers
from orchestrator.training.engines.sharding import check_backend, sharding_of
from orchestrator.training.engines.tensor import check_divisible, divide, stream_of
from orchestrator.training.engines.torch_engine import TorchEngine
from orchestrator.training.engines.weights import take_weights
from orchestrator.training.errors import NotSupported, PlanMismatch
from orchestrator.training.objective import Objective
from orchestrator.training.precision import cast_parameters, compute_dtype


class PipelineEngine(TorchEngine):
    """A step's micro batches follow each other through the stages.

    The ranks of a stage hold copies of it (DDP) or, under fsdp and tensor parallelism, parts
    (`fully_shard`); either way gradients are averaged over them once a step.
    """

    decoder: Decoder
    layers: range
    """Numbers of this stage's layers in the uncut model."""
    stages: dist.ProcessGroup
    """The ranks that differ from this one in their stage alone."""
    stage: Stage
    schedules: Schedules
    spread: str
    """How this stage really lies on its ranks, in words."""
    scale = 1.0
    """Of the losses of the step that runs."""

    def wrap(self, objective: Objective) -> nn.Module:
        cast_parameters(objective, self.settings)
        with together(self.rank):
            self.decoder = self._checked(objective)
        mesh = self.layout.device_mesh(self.rank.device.type)
        self.stages = mesh.get_group("pipeline")
        self.uncut = UncutModel(objective)
        weights = take_weights(objective, self.rank)
        self.layers = self._cut(mesh)
        self.tied = TiedCopies(self.decoder, self.stages)
        with together(self.rank):
            self._refuse_frozen_stage(objective)
            prepare_layers(objective, self.settings)
        self.stage = Stage(objective, self.decoder, dtype=self._dtype(), autocast=self.autocast)
        if self._sharded:
            shard(self.stage, self.plan, self.layout, mesh)
        self.uncut.spread(objective, weights, self.rank.device)
        module = self.stage if self._sharded else self._copied(mesh)
        with together(self.rank):
            check_backend(self.rank.device, self.stages)
            self.spread = self._spread(module)
        self.schedules = Schedules(
            module, self.stages, self.rank.device, self._dtype(), self._weighted
        )
        return module

    def in_buckets(self) -> bool:
        return not self._sharded

    @property
    def _sharded(self) -> bool:
        return self.plan.strategy.name == "fsdp" or self.layout.tensor > 1

    def _checked(self, objective: Objective) -> Decoder:
        """Raises NotSupported for what a pipeline cannot do, before anything has been changed."""
        strategy = self.plan.strategy
        if strategy.name == "zero" or (isinstance(strategy, Fsdp) and strategy.offload):
            what = "strategy zero" if strategy.name == "zero" else "strategy.offload"
            raise NotSupported(
                f"{what} does not go with pipeline_parallel, which is {strategy.pipeline_parallel}",
                hint="use `strategy: fsdp` without offload, or set pipeline_parallel to 1",
            )
        decoder = decoder_of(objective.model, purpose="pipeline parallelism")
        layer_counts(len(decoder.layers), self.layout.pipeline, 0.0)
        if self.layout.tensor > 1:
            check_divisible(decoder, self.layout.tensor)
        if self._sharded:
            refuse_uncuttable(objective)
        return decoder

    def _cut(self, mesh: DeviceMesh) -> range:
        tensor, sequence = self.layout.tensor, self.plan.strategy.sequence_parallel

        def lay_out(hidden: torch.Tensor) -> torch.Tensor:
            if tensor == 1:
                return hidden
            placement = stream_of(sequence)
            return DTensor.from_local(hidden, mesh["tensor"], [placement], run_check=False)

        own = cut(self.decoder, self.stages.rank(), self.stages.size(), lay_out)
        if tensor > 1:
            divide(self.decoder, mesh["tensor"], sequence=sequence)
        return own

    def _refuse_frozen_stage(self, objective: Objective) -> None:
        if not any(parameter.requires_grad for parameter in objective.parameters()):
            raise NotSupported(
                f"stage {self.stages.rank()} of the pipeline, {self._numbers()}, has no "
                "trainable parameter",
                hint="train parameters of every stage, or lower pipeline_parallel",
            )

    def _copied(self, mesh: DeviceMesh) -> DistributedDataParallel:
        return DistributedDataParallel(
            self.stage,
            process_group=mesh.get_group("replicate"),
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
        )

    def _spread(self, module: nn.Module) -> str:
        """Raises PlanMismatch where the stage or its ranks are not the planned ones."""
        found = {"stages": self.stages.size(), "layers of this stage": len(self.decoder.layers)}
        planned = {"stages": self.layout.pipeline, "layers of this stage": len(self.layers)}
        if isinstance(module, DistributedDataParallel):
            found["copies of each stage"] = module.process_group.size()
            planned["copies of each stage"] = self.layout.data_size
        for what, number in planned.items():
            if found[what] != number:
                raise PlanMismatch(f"{number} {what} were planned, and there are {found[what]}")
        if isinstance(module, DistributedDataParallel):
            return f"ddp over {found['copies of each stage']} ranks"
        return f"{self.plan.strategy.name}: {sharding_of(module, self.layout)}"

    def _dtype(self) -> torch.dtype:
        """Of hidden states between stages: autocast leaves them in the parameters' own."""
        if self._sharded or self.settings.precision == "bf16":
            return compute_dtype(self.settings)
        return torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self._sharded else super().autocast()

    def synchronised(self, last: bool) -> AbstractContextManager[object]:  # noqa: ARG002
        return nullcontext()  # PyTorch's stage knows its last backward pass

    def gradients(self, batches: Sequence[Batch], weight: float) -> torch.Tensor:
        total = torch.zeros((), device=self.rank.device)
        self.scaler.scale(
            total
        )  # a scaler that has scaled nothing, as without a loss, has no scale
        self.scale = self.layout.data_size / weight
        self._run(batches, backward=True)
        self.tied.add_gradients()
        if self.layout.owns_loss:
            total += torch.stack(self.stage.losses).sum()
        return total

    def _weighted(self, loss: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
        return self.scaler.scale(loss * self.scale)

    def _run(self, batches: Sequence[Batch], *, backward: bool, want_logits: bool = False) -> None:
        moved = [batch.to(self.rank.device) for batch in batches]
        self.stage.load(moved, want_logits=want_logits)
        shapes = {tuple(batch.inputs["tokens"].shape) for batch in moved}
        if len(shapes) > 1:
            raise NotSupported(
                f"a pipeline's micro batches have one shape, and here are {sorted(shapes)}",
                hint="cut the data into samples of one length: packed, or padded to the context",
            )
        ((samples, time),) = shapes
        if self.plan.strategy.sequence_parallel:
            time //= self.layout.tensor
        shape = samples, time, self.decoder.embedding.embedding_dim
        self.schedules.run(len(moved), shape, backward=backward)

    def clip(self, largest: float) -> torch.Tensor:
        return clip_gradients(
            self.trained(),
            largest,
            stages=self.stages,
            elsewhere=self.tied.counted_elsewhere(),
        )

    @torch.no_grad()
    def evaluate(
        self, batch: Batch, *, want_logits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.module.eval()
        try:
            self._run([batch], backward=False, want_logits=want_logits)
        finally:
            self.module.train()
        if not self.layout.owns_loss:
            return torch.zeros((), device=self.rank.device), None
        (loss,) = self.stage.losses
        return loss, self.stage.logits

    def state(self, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, torch.Tensor]:
        return self.uncut.gather(self.objective.model, self.layout, self.stages, wanted, self.whole)

    def named(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in super().named():
            yield self.uncut.first_name(name), tensor

    def pieces(self) -> list[Piece]:
        """Of a matrix that the first and the last stage both hold, the first one's is saved."""
        elsewhere = {id(parameter) for parameter in self.tied.counted_elsewhere()}
        twice = {name for name, tensor in self.named() if id(tensor) in elsewhere}
        return [
            replace(piece, copy=piece.copy + piece.copies) if piece.name in twice else piece
            for piece in super().pieces()
        ]

    def step_counts(self) -> dict[str, int]:
        everyone: list[Any] = [None] * self.stages.size()
        dist.all_gather_object(everyone, super().step_counts(), group=self.stages)
        return {name: count for counts in everyone for name, count in counts.items()}

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def _numbers(self) -> str:
        return f"layers {self.layers[0]} to {self.layers[-1]}"

    def describe(self) -> str:
        return (
            f"pipeline of {self.stages.size()} stages, {self._numbers()} on this one, each "
            f"{self.spread}"
        )
