"""From an image file to pixels: many formats and modes in, one shape out."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from orchestrator.training.errors import NotSupported

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


class Unreadable(Exception):
    """A file that holds no image, or not a whole one; says why."""


def require_pillow() -> None:
    """Raise NotSupported where Pillow is missing: at start, and not at the first image."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise NotSupported(
            "image files are read with the package pillow, which is not installed here",
            hint="pip install 'ptx[data]'",
        ) from error


def decoded(path: Path, size: int) -> torch.Tensor:
    """uint8 (3, size, size): the middle of the image, its shorter side scaled to `size`.

    Turned as its EXIF orientation says; what is transparent is white; 16 bits a channel are
    scaled down to 8. Raises Unreadable.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            # A JPEG can be decoded at a fraction of its size, which is several times as fast.
            image.draft("RGB", (size, size))
            upright = ImageOps.exif_transpose(_rgb(image))
            square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(square)
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow itself cuts off at 255, which leaves white. PNG and PGM of 16 bits open as either.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65_535:
            raise Unreadable("its values are not of 16 bits")
        narrow = Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
        narrow.info = image.info
        return narrow
    if image.mode == "F":
        raise Unreadable("its pixels are floating-point numbers, whose range is not known")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")


# Pillow reports damaged files through all of these, depending on the format.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
)
