"""What is done to a model's layers before they are wrapped: recomputation and compilation."""

from __future__ import annotations

from torch import nn

from orchestrator.spec.training import Training


def prepare_layers(objective: nn.Module, training: Training) -> None:
    """Change the layers in place as the settings say. Names of parameters stay what they are."""
