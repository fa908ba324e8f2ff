"""Pictures as a model takes them: in its size, augmented and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from orchestrator.training.batch import IGNORED, Batch
from orchestrator.training.vision.augmentation import Augmentation
from orchestrator.training.vision.pictures import Pictures


@dataclass(frozen=True)
class InputFormat:
    """What a model wants to see; a value of 1 is white before `mean` is taken from it."""

    image_size: int
    channels: int
    mean: tuple[float, ...]
    """One a channel."""
    std: tuple[float, ...]


class PictureDataset:
    """Some of the pictures, as batches of `pixel_values`."""

    tokens_per_sample = None

    def __init__(
        self,
        pictures: Pictures,
        numbers: Sequence[int],
        wanted: InputFormat,
        augmentation: Augmentation | None = None,
    ) -> None:
        self._pictures, self._numbers = pictures, numbers
        self._wanted, self._augmentation = wanted, augmentation
        self._mean = torch.tensor(wanted.mean).view(1, -1, 1, 1)
        self._std = torch.tensor(wanted.std).view(1, -1, 1, 1)

    @property
    def uniform(self) -> bool:
        return not self._pictures.may_skip

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, indices: Sequence[int]) -> Batch:
        """inputs["pixel_values"]: float32 (samples, channels, size, size); targets: classes.

        An unreadable picture is black and has no target that counts.
        """
        return self.take_in_epochs(indices, [0] * len(indices))

    def take_in_epochs(self, indices: Sequence[int], epochs: Sequence[int]) -> Batch:
        """The same, each as it looks in its epoch (from 0)."""
        numbers = [self._numbers[index] for index in indices]
        pixels, readable = self._pictures.read(numbers)
        targets = torch.tensor([self._pictures.labels[number] for number in numbers])
        targets = torch.where(readable, targets, IGNORED)
        pixels = _in_format(pixels, self._wanted)
        if self._augmentation is not None:
            pixels = self._augmentation(pixels, numbers, epochs)
        values = (pixels.float() / 255 - self._mean) / self._std
        count = int(readable.sum())
        return Batch({"pixel_values": values}, targets, weight=count, skipped=len(numbers) - count)


def _in_format(pixels: torch.Tensor, wanted: InputFormat) -> torch.Tensor:
    """uint8 (pictures, channels, height, width) -> the same with the wanted size and channels."""
    if pixels.shape[1] != wanted.channels:
        grey = pixels.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
        pixels = grey.expand(-1, wanted.channels, -1, -1)
    size = (wanted.image_size, wanted.image_size)
    if pixels.shape[2:] != size:
        pixels = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
        pixels = pixels.round().to(torch.uint8)
    return pixels
