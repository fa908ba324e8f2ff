"""What the engines built on torch alone share: optimizer, loss scaling, clipping."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import nn

from orchestrator.errors import UserError
from orchestrator.training.batch import Batch
from orchestrator.training.engines.base import Engine
from orchestrator.training.engines.clipping import clip_gradients
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
        return norm

    def clip(self, largest: float) -> torch.Tensor:
        """Scale the gradients so that their norm over all ranks is at most `largest`, and return
        it."""
        return clip_gradients(self.trained(), largest)

    def trained(self) -> list[nn.Parameter]:
        """What the optimizer updates on this rank."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

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
