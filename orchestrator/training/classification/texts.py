"""Labelled texts as a model takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from orchestrator.training.batch import Batch
from orchestrator.training.classification.encoding import Encoder
from orchestrator.training.classification.split import some_of
from orchestrator.training.classification.text_data import TextData
from orchestrator.training.classification.training import ClassifierData


class TextDataset:
    """Some of the texts."""

    uniform = True
    tokens_per_sample = None

    def __init__(self, data: TextData, numbers: Sequence[int], encoder: Encoder) -> None:
        self._data, self._numbers, self._encoder = data, numbers, encoder

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, indices: Sequence[int]) -> Batch:
        """inputs: as `Encoder` says, padded to the longest text; targets: classes."""
        numbers = [self._numbers[index] for index in indices]
        inputs = self._encoder([self._data.texts[number] for number in numbers])
        targets = torch.tensor([self._data.labels[number] for number in numbers])
        return Batch(inputs, targets, weight=len(numbers))


def text_parts(data: TextData, encoder: Encoder, *, seed: int) -> ClassifierData:
    """What a classifier of these texts is trained, validated and tested on."""
    split = data.split
    seen = some_of(split.train, len(split.validation), seed=seed)
    return ClassifierData(
        train=TextDataset(data, split.train, encoder),
        seen=TextDataset(data, seen, encoder),
        validation=TextDataset(data, split.validation, encoder),
        test=TextDataset(data, split.test, encoder),
        classes=data.classes,
        source=data.source,
    )
