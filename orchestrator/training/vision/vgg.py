"""VGG-style convolutional networks (Simonyan and Zisserman 2014), in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

VGG16 = (2, 2, 3, 3, 3)
"""Convolutions in each stage of the paper's configuration D."""
Norm = Callable[[int], nn.Module]
"""Makes a layer that normalises so many channels."""


@dataclass(frozen=True)
class VggShape:
    """The paper's VGG16 is `image_size` 224, without batch normalisation, and the defaults."""

    channels: int
    classes: int
    image_size: int
    width: int = 64
    """Channels of the first stage, doubled in each that follows up to eight times as many."""
    depths: Sequence[int] = VGG16
    """Convolutions in each stage."""
    hidden: int = 4096
    """Width of the classifier's two hidden layers."""
    dropout: float = 0.5
    """Of their outputs."""
    batch_norm: bool = True
    """After each convolution (Ioffe and Szegedy 2015)."""

    def facts(self) -> dict[str, Any]:
        """As they are written to a file."""
        return asdict(self) | {"depths": list(self.depths)}


class ConvLayer(nn.Module):
    """A 3 x 3 convolution that keeps the size, batch normalisation if wanted, and ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: Norm | None) -> None:
        super().__init__()
        # Batch normalisation takes the mean away, and any bias before it with it.
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm is None)
        self.norm = nn.Identity() if norm is None else norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, inputs, height, width) -> (samples, outputs, height, width)."""
        return torch.relu(self.norm(self.convolution(x)))


class Stage(nn.Module):
    """Convolutions of one width, then a pooling that halves height and width."""

    def __init__(self, inputs: int, outputs: int, depth: int, norm: Norm | None) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * depth
        self.layers = nn.Sequential(
            *(ConvLayer(before, after, norm) for before, after in pairwise(widths))
        )
        # The last row of an odd height is kept, so that small images survive five stages.
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, inputs, height, width) -> (samples, outputs, height / 2, width / 2)."""
        return self.pool(self.layers(x))  # type: ignore[no-any-return]


class Vgg(nn.Module):
    """Stages of growing width and a classifier of two hidden layers."""

    def __init__(self, shape: VggShape, norm: Norm = nn.BatchNorm2d) -> None:
        """`norm` is used where the shape wants batch normalisation."""
        super().__init__()
        self.stages = nn.ModuleList()
        before, size = shape.channels, shape.image_size
        for number, depth in enumerate(shape.depths):
            after = shape.width * min(2**number, 8)
            self.stages.append(Stage(before, after, depth, norm if shape.batch_norm else None))
            before, size = after, -(-size // 2)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(before * size**2, shape.hidden),
            nn.ReLU(),
            nn.Dropout(shape.dropout),
            nn.Linear(shape.hidden, shape.hidden),
            nn.ReLU(),
            nn.Dropout(shape.dropout),
            nn.Linear(shape.hidden, shape.classes),
        )
        self.apply(_initialise)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """float (samples, channels, image_size, image_size) -> logits (samples, classes)."""
        x = pixel_values.to(next(self.parameters()).dtype)
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x)  # type: ignore[no-any-return]


def _initialise(module: nn.Module) -> None:
    """So that the signal neither dies nor grows through ReLUs (He et al. 2015)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
