"""What the engines built on torch alone share: optimizer, loss scaling, clipping."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from orchestrator.errors import UserError
from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint.optimizer_state import (
    commonest,
    counts_of,
    materialise_state,
    set_steps_taken,
)
from orchestrator.training.checkpoint.pieces import Piece, torch_pieces, trained_tensors
from orchestrator.training.engines.base import Engine
from orchestrator.training.engines.clipping import clip_gradients
from orchestrator.training.errors import NotSupported
from orchestrator.training.layout import Layout
from orchestrator.training.objective import Objective, apply
from orchestrator.training.optim import build_optimizer
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.precision import autocast, grad_scaler
from orchestrator.training.process_group import Rank


class TorchEngine(Engine):
    """Subclasses say how the module is wrapped and when gradients travel."""

    def __init__(
        self, objective: Objective, plan: TrainingPlan, rank: Rank, layout: Layout
    ) -> None:
        """Takes the objective over: it is moved, cast, wrapped and made equal on all ranks.

        Raises UserError where nothing of it is trainable.
        """
        refuse_frozen(objective)
        self.plan, self.rank, self.layout = plan, rank, layout
        self.settings = plan.training
        self.unit = objective.unit
        self.objective = objective
        self.module = self.wrap(objective)
        self.optimizer = build_optimizer(self.objective, self.settings.optimizer)
        self.scaler = grad_scaler(self.settings, rank.device)
        self.steps = 0
        """Calls of `step`, before a restore too."""
        # For dropout: other masks for other samples, and the same on ranks that share a layer,
        # some of which have drawn random weights before and some not.
        torch.manual_seed(self.settings.seed + layout.data_rank)

    @abstractmethod
    def wrap(self, objective: Objective) -> nn.Module:
        """Place the objective on the device and spread it; return what is called forward."""

    @abstractmethod
    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        """The context of a micro batch's forward and backward; gradients travel in the `last`."""

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        return autocast(self.settings, self.rank.device)

    def placed(self, batch: Batch) -> Batch:
        """On the device, and with real numbers (pixels, say) in the parameters' format."""
        batch = batch.to(self.rank.device)
        if self.settings.precision != "bf16":
            return batch
        inputs = {
            name: tensor.bfloat16() if tensor.is_floating_point() else tensor
            for name, tensor in batch.inputs.items()
        }
        return replace(batch, inputs=inputs)

    def gradients(self, batches: Sequence[Batch], weight: float) -> torch.Tensor:
        # The wrappers average over the data ranks, and what is wanted is a sum over them.
        scale = self.layout.data_size / weight
        total = torch.zeros((), device=self.rank.device)
        for number, batch in enumerate(batches):
            with self.synchronised(last=number == len(batches) - 1):
                with self.autocast():
                    loss, _ = apply(self.module, self.placed(batch))
                self.scaler.scale(loss * scale).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total if self.layout.owns_loss else torch.zeros_like(total)

    def step(self, lr: float) -> torch.Tensor | None:
        norm = None
        if self.settings.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            norm = self.clip(self.settings.clip_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.steps += 1
        return norm

    def clip(self, largest: float) -> torch.Tensor:
        """Scale the gradients so that their norm over all ranks is at most `largest`, and return
        it."""
        return clip_gradients(self.trained(), largest)

    def trained(self) -> list[nn.Parameter]:
        """What the optimizer updates on this rank."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def in_buckets(self) -> bool:
        """Whether PyTorch's DDP sums the gradients of the data ranks."""
        return False

    def settle(self, batches: Callable[[], Sequence[Batch]]) -> None:
        """DDP lays its buckets out anew after the first backward pass, in the order in which the
        gradients came. Beyond two ranks the sums within another bucket are rounded in another
        order, so a resumed training takes that pass before it starts, and forgets it.
        """
        if not self.in_buckets() or self.layout.data_size <= 2:
            return
        statistics = [(tensor, tensor.clone()) for tensor in statistics_of(self.objective)]
        devices = [self.rank.device] if self.rank.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            self.gradients(batches(), 1.0)
        self.optimizer.zero_grad()
        with torch.no_grad():
            for tensor, before in statistics:
                tensor.copy_(before)

    def left_out_overflow(self) -> bool:
        return bool(self.scaler.is_enabled())

    def skipped_steps(self) -> int:
        return self.scaler.skipped()

    @torch.no_grad()
    def evaluate(
        self, batch: Batch, *, want_logits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self.module.eval()
        try:
            with self.autocast():
                loss, logits = apply(self.module, self.placed(batch), want_logits=want_logits)
        finally:
            self.module.train()
        if not self.layout.owns_loss:
            return torch.zeros_like(loss), None
        return loss, logits

    def state(self, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        first: dict[int, str] = {}  # names of what tied names share
        for name, tensor in self.objective.model.state_dict(keep_vars=True).items():
            if not wanted(name):
                continue
            tied = first.setdefault(id(tensor), name)
            if tied == name:
                whole = self.whole(tensor)
                if self.rank.is_main:
                    # A copy: training goes on while a checkpoint is written.
                    found[name] = whole.to("cpu", copy=True)
            elif self.rank.is_main:
                found[name] = found[tied]
        return found

    def pieces(self) -> list[Piece]:
        """Raises NotSupported for a trained parameter that the objective has beside its model."""
        self._refuse_unnamed()
        materialise_state(self.optimizer)
        holders = self.layout.replicate * self.layout.shard * self.layout.tensor  # of a stage
        copy = self.rank.rank % holders
        return list(torch_pieces(self.named(), self.optimizer, copy=copy, copies=holders))

    def _refuse_unnamed(self) -> None:
        kept = {id(tensor) for _, tensor in self.named()}
        trained = {id(parameter) for parameter in self.trained()}
        for name, parameter in self.objective.named_parameters():
            if id(parameter) in trained - kept:
                raise NotSupported(
                    f"checkpoints hold what the objective's model has, and {name} is beside it",
                    hint="make the parameter one of the model's, or do not train it",
                )

    def named(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What training changes on this rank, by the names of the uncut model."""
        return trained_tensors(self.objective.model)

    def scalars(self) -> dict[str, Any]:
        """Beside what all engines know: `calls` of `step`, and in `steps_of` by name the counts of
        parameters that not every step has updated."""
        counts = self.step_counts()
        steps = commonest(counts.values())
        others = {name: count for name, count in counts.items() if count != steps}
        return {
            "steps": steps,
            "steps_of": others,
            "calls": self.steps,
            **self.scaler.numbers(),
        }

    def step_counts(self) -> dict[str, int]:
        """The optimizer's counts of steps of all parameters of the uncut model, by name."""
        counts = counts_of(self.optimizer)
        return {name: counts[tensor] for name, tensor in self.named() if tensor in counts}

    def restore(self, fill: Callable[[Piece], None], scalars: Mapping[str, Any]) -> None:
        for piece in self.pieces():
            fill(piece)
        self.restore_scalars(scalars)

    def restore_scalars(self, scalars: Mapping[str, Any]) -> None:
        """What `scalars` gave, in this engine or another."""
        steps, others = scalars.get("steps"), scalars.get("steps_of", {})
        if steps is not None:
            exceptions = {tensor: others[name] for name, tensor in self.named() if name in others}
            set_steps_taken(self.optimizer, steps, exceptions)
        self.scaler.go_on_from(scalars)
        self.steps = scalars.get("calls", (steps or 0) + scalars.get("skipped", 0))

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """The full tensor of which a state dict holds this rank's part; all ranks call it."""
        return tensor.detach()


def refuse_frozen(module: nn.Module) -> None:
    """Raise UserError where there is no parameter to train."""
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(
            "no parameter of the model is trainable, so there is nothing to train",
            hint="give training.trainable a pattern that a parameter's name matches, or leave "
            "it out",
        )


def statistics_of(module: nn.Module) -> list[torch.Tensor]:
    """Buffers that training changes, as a batch norm's: those that a state dict keeps.

    The others are tables, which every rank has computed alike.
    """
    kept = module.state_dict(keep_vars=True).values()
    return [tensor for tensor in kept if not isinstance(tensor, nn.Parameter)]
