"""What every way of spreading a model over ranks can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint.pieces import Piece
from orchestrator.training.flops import ModelShape
from orchestrator.training.objective import Objective


class Engine(ABC):
    """A model in training with its optimizer, spread over the ranks.

    Every method is called by all ranks together, the same number of times and in the same order:
    inside are collectives, and a rank that stays away leaves the others waiting.
    """

    objective: Objective
    """The module that is trained; what spreads it calls its `forward`."""
    unit: str
    """What a target is, in words, as the objective says."""
    shape: ModelShape | None = None
    """What the model's arithmetic follows from; None where nobody has counted it."""

    @abstractmethod
    def gradients(self, batches: Sequence[Batch], weight: float) -> torch.Tensor:
        """Forward and backward of this rank's micro batches of one optimizer step.

        `weight` is the sum of all their weights over all data ranks: gradients become those of
        (sum of all losses) / weight, whatever the split into ranks and micro batches.
        Returns this rank's summed loss: a float scalar on its device, detached, read by nobody
        yet (reading it would make the host wait); zero where another rank owns it.
        """

    @abstractmethod
    def step(self, lr: float) -> torch.Tensor | None:
        """Clip, update the parameters with learning rate `lr`, and clear the gradients.

        Returns the gradient's L2 norm over all parameters of all ranks before clipping, or None
        where nothing is clipped.
        """

    def finish(self) -> None:  # noqa: B027 - most have nothing to do
        """After the last step: leave all ranks that hold the same part with the same values."""

    def skipped_steps(self) -> int:
        """Steps so far that changed nothing because fp16 gradients overflowed. Waits for the
        device, so it is asked for at reports only."""
        return 0

    def left_out_overflow(self) -> bool:
        """Whether the last step has changed nothing, or would not have, because of gradients that
        were not finite. Never waits for the device."""
        return False

    @abstractmethod
    def evaluate(
        self, batch: Batch, *, want_logits: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Summed loss and, if wanted, logits of one batch in evaluation mode, no gradients.

        Ranks that share a model call it equally often (see `Batch.ignored`). Where the layout's
        `owns_loss` is false the loss is zero and the logits are None.
        """

    @abstractmethod
    def state(self, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, torch.Tensor]:
        """Whole parameters and buffers whose name is `wanted`, on the CPU of rank 0; {} elsewhere.

        Names and shapes are those of the objective's `model` before it was wrapped, so its
        `state_dict` on one process. Gathers one tensor (or layer) at a time.
        """

    @abstractmethod
    def pieces(self) -> list[Piece]:
        """What this rank holds of all that training changes: trained parameters, kept buffers, and
        the optimizer's tensors, which are made where there are none yet.

        The tensors are the living ones: copied at once, or written into by `restore`. Names are
        those of the objective's `model` before it was wrapped, the same under every engine.
        """

    @abstractmethod
    def scalars(self) -> dict[str, Any]:
        """What goes with the pieces and is the same on all ranks, as JSON values.

        Those that every engine knows: `steps`, the count by which Adam corrects its averages (None
        where the optimizer has none; skipped steps are not in it), `skipped`, the steps skipped so
        far, and with fp16 `loss_scale` and `clean_steps`, the steps since it was last changed.
        Others may be added, and an engine passes over those that it does not know.
        """

    @abstractmethod
    def restore(self, fill: Callable[[Piece], None], scalars: Mapping[str, Any]) -> None:
        """Take over a state that any engine on any number of ranks has saved.

        `fill` writes the saved values into a piece's tensor; it raises where the checkpoint has
        none. Afterwards training goes on as if it had never stopped.
        """

    def settle(self, batches: Callable[[], Sequence[Batch]]) -> None:  # noqa: B027 - most need not
        """Before a state is restored: come into the order of computation that an engine is in which
        has done steps, so that sums have the same last bits. `batches` gives some of a step."""

    @abstractmethod
    def describe(self) -> str:
        """How the model really lies on the ranks, in words, read off the wrapped module."""
