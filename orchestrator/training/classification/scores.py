"""How often a classifier is right: accuracy, F1 and who is taken for whom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from orchestrator.training.batch import IGNORED, Batch


class Confusion:
    """Counts pairs of true and predicted class, batch by batch: an evaluation's observer."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        # One count more, for targets that do not count: to leave them out instead would give
        # tensors whose size the host has to wait for.
        self._counts = torch.zeros(classes * classes + 1, dtype=torch.int64)

    def observe(self, logits: torch.Tensor, batch: Batch) -> None:
        """`logits`: (samples, classes) of `batch`, on any device."""
        targets = batch.targets.to(logits.device, non_blocking=True)
        pairs = targets * self._classes + logits.argmax(dim=-1)
        pairs = torch.where(targets == IGNORED, self._classes**2, pairs)
        self._counts = self._counts.to(logits.device)
        self._counts.scatter_add_(0, pairs, torch.ones_like(pairs))

    def scores(self) -> Scores:
        """Over the samples of all ranks, which call it together; the same on each."""
        counts = self._counts[:-1].cpu()
        dist.all_reduce(counts)
        return Scores(counts.view(self._classes, self._classes))


@dataclass(frozen=True)
class Scores:
    """What follows from a confusion matrix; defined as scikit-learn does, with 0 for 0 / 0."""

    confusion: torch.Tensor
    """int64 (classes, classes): samples by true class (row) and predicted class (column)."""

    @property
    def samples(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of samples whose class is the predicted one."""
        return _ratio(self.confusion.trace(), self.confusion.sum()).item()

    @property
    def support(self) -> list[int]:
        """Samples of each class."""
        return [int(count) for count in self.confusion.sum(dim=1)]

    @property
    def precision(self) -> list[float]:
        """By class: share of the samples taken for it that are of it."""
        return _floats(_ratio(self.confusion.diagonal(), self.confusion.sum(dim=0)))

    @property
    def recall(self) -> list[float]:
        """By class: share of its samples that are taken for it."""
        return _floats(_ratio(self.confusion.diagonal(), self.confusion.sum(dim=1)))

    @property
    def f1(self) -> list[float]:
        """By class: harmonic mean of precision and recall (van Rijsbergen 1979)."""
        return _floats(_ratio(2 * self.confusion.diagonal(), self._occurrences))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur, be it as truth or as prediction."""
        occurring = [f1 for f1, count in zip(self.f1, self._occurrences, strict=True) if count]
        return sum(occurring) / max(1, len(occurring))

    @property
    def _occurrences(self) -> torch.Tensor:
        return self.confusion.sum(dim=0) + self.confusion.sum(dim=1)


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return part.double() / whole.clamp(min=1)


def _floats(values: torch.Tensor) -> list[float]:
    return [float(value) for value in values]
