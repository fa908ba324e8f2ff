"""What a model is given at once, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch

IGNORED = -100
"""A target that does not count, as in PyTorch's cross-entropy."""


@dataclass(frozen=True)
class Batch:
    """One micro batch, on the CPU until `to`."""

    inputs: dict[str, torch.Tensor]
    """Named tensors, samples first."""
    targets: torch.Tensor
    """int64: (samples, time) of the next tokens, or (samples,) of classes; IGNORED where none."""
    weight: int
    """Targets that count. A step's loss is the sum over all targets divided by all weights."""
    skipped: int = 0
    """Samples that could not be read, and another or nothing stands in their place."""
    extras: dict[str, int] = field(default_factory=dict)
    """Numbers (no tensors) that the objective needs beside the inputs, such as a longest length."""

    def to(self, device: torch.device) -> Batch:
        """On `device`; to a GPU the copy runs beside the kernels of the step before."""
        return replace(
            self,
            inputs={name: _moved(tensor, device) for name, tensor in self.inputs.items()},
            targets=_moved(self.targets, device),
        )

    def ignored(self) -> Batch:
        """The same shapes, and no target that counts: for a rank that has run out of samples
        while others, whose model parts it holds, have not."""
        return replace(self, targets=torch.full_like(self.targets, IGNORED), weight=0, skipped=0)


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class Dataset(Protocol):
    """Samples by number. The same on every rank: who takes which is decided elsewhere."""

    @property
    def tokens_per_sample(self) -> int | None:
        """For throughput; None where samples are not made of tokens."""

    @property
    def uniform(self) -> bool:
        """Whether each sample has the same number of targets; if so ranks need not ask."""

    def __len__(self) -> int:
        """Samples in an epoch."""

    def take(self, indices: Sequence[int]) -> Batch:
        """These samples (0 <= index < len), in this order, in one batch; at least one.

        May be called in a thread other than the main one, one call at a time.
        """


@runtime_checkable
class EpochDataset(Dataset, Protocol):
    """Samples that look different in each epoch, in training: augmentation."""

    def take_in_epochs(self, indices: Sequence[int], epochs: Sequence[int]) -> Batch:
        """As `take`, each sample as it looks in its epoch (from 0). Nothing else may decide how,
        or losses would depend on the number of ranks."""
