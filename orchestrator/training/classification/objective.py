"""Choosing one of several classes for a whole sample: an image, a text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from orchestrator.training.batch import IGNORED
from orchestrator.training.objective import Objective


class Classify(Objective):
    """Cross-entropy of a sample's class.

    `model` is called with a batch's inputs by name and returns logits (samples, classes): as a
    tensor, or as `logits` of its output, which is how transformers' models do it.
    """

    unit = "sample"

    def __init__(self, model: nn.Module, *, label_smoothing: float = 0.0) -> None:
        """`label_smoothing`: the share of each target that is spread over all classes while
        training (Szegedy et al. 2016); the loss in evaluation is without it."""
        super().__init__(model)
        self.label_smoothing = label_smoothing

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        targets: torch.Tensor,
        extras: dict[str, int],  # noqa: ARG002 - part of every objective's signature
        want_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """targets: int64 (samples,); the loss is in nats, summed."""
        output = self.model(**inputs)
        logits: torch.Tensor = output if isinstance(output, torch.Tensor) else output.logits
        loss = F.cross_entropy(
            logits.float(),
            targets,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        return loss, logits if want_logits else None
