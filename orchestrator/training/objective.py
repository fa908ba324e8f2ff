"""A model together with its loss, as the one module that DDP, FSDP and DeepSpeed wrap."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from orchestrator.training.batch import Batch


class Objective(nn.Module, ABC):
    """From a batch to its summed loss, inside one `forward`.

    Wrappers gather parameters and reduce gradients around `forward` and nowhere else, so the loss
    must be computed within: a chunked cross-entropy, say, reads the output layer's weight.
    """

    unit: str = "sample"
    """What one target is, in words: byte, token, sample. Losses are in nats a unit."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        targets: torch.Tensor,
        extras: dict[str, int],
        want_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Loss summed over all targets that count: float32 scalar. And the logits, if wanted:
        (..., classes), else None."""


def apply(
    module: nn.Module, batch: Batch, *, want_logits: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Call an objective, or what wraps it, with a batch that is on the right device."""
    loss, logits = module(batch.inputs, batch.targets, batch.extras, want_logits)
    return loss, logits
