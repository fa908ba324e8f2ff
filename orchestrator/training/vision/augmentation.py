"""Random crops and flips that depend on nothing but seed, sample and epoch.

So a sample looks the same whichever rank takes it, and losses do not depend on their number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Augmentation:
    """Padding by `crop` pixels and cropping at random (He et al. 2016), and mirroring."""

    seed: int
    crop: int = 0
    """Pixels by which an image may move in each direction; what is moved in is zero."""
    flip: bool = False
    """Mirror left and right, in every other case."""

    def __call__(
        self, pixels: torch.Tensor, numbers: Sequence[int], epochs: Sequence[int]
    ) -> torch.Tensor:
        """(samples, channels, height, width) -> the same shape; `numbers` and `epochs` say
        which sample in which epoch each one is."""
        draws = [self._draw(*case) for case in zip(numbers, epochs, strict=True)]
        tops, lefts, flips = torch.tensor(draws).view(-1, 3, 1).unbind(1)
        samples, channels, height, width = pixels.shape
        columns = lefts + torch.arange(width)
        columns = torch.where(flips == 1, columns.flip(1), columns)
        rows = tops + torch.arange(height)
        padded = F.pad(pixels, [self.crop] * 4)
        return padded[
            torch.arange(samples).view(-1, 1, 1, 1),
            torch.arange(channels).view(1, -1, 1, 1),
            rows.view(samples, 1, height, 1),
            columns.view(samples, 1, 1, width),
        ]

    def _draw(self, number: int, epoch: int) -> tuple[int, int, int]:
        """First row and column of the crop in the padded image, and whether to mirror it."""
        text = f"{self.seed}/{epoch}/{number}".encode()
        bits = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        places = 2 * self.crop + 1
        bits, top = divmod(bits, places)
        bits, left = divmod(bits, places)
        return top, left, bits % 2 if self.flip else 0
