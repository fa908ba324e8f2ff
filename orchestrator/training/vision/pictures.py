"""Labelled pictures by number, wherever they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from orchestrator.training.classification.split import Split


class Pictures(Protocol):
    """The same on every rank."""

    @property
    def classes(self) -> Sequence[str]:
        """Names; a label is a place among them."""

    @property
    def labels(self) -> Sequence[int]:
        """Of each picture."""

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (red, green, blue)."""

    @property
    def may_skip(self) -> bool:
        """Whether `read` may say that a picture is unreadable, instead of raising."""

    def read(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 (pictures, channels, height, width); and bool (pictures,): which were readable.

        What was not is black. Raises TrainingFailed where one is unreadable and may not be.
        """


@dataclass(frozen=True)
class PictureArray:
    """Pictures that fit into memory."""

    pixels: torch.Tensor
    """uint8 (pictures, channels, height, width)."""
    labels: Sequence[int]
    classes: Sequence[str]
    may_skip: bool = False

    @property
    def channels(self) -> int:
        return self.pixels.shape[1]

    def read(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pixels[list(numbers)], torch.ones(len(numbers), dtype=torch.bool)


@dataclass(frozen=True)
class PictureData:
    """Pictures and what each is for."""

    pictures: Pictures
    split: Split
    image_size: int
    """Height and width at which they come, in pixels."""
    source: str
    """In words, for the log."""
