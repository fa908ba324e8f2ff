"""Handwritten digits that come with scikit-learn: real, small and on every machine."""

from __future__ import annotations

import torch

from orchestrator.training.classification.split import stratified
from orchestrator.training.errors import NotSupported
from orchestrator.training.vision.pictures import PictureArray, PictureData

_LARGEST = 16  # ink in a cell, as the data set counts it


def load_digits(*, seed: int, validation: float = 0.1, test: float = 0.1) -> PictureData:
    """1,797 grey digits of 8 x 8 pixels (Alpaydin and Kaynak 1998, the test part).

    Raises NotSupported without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise NotSupported(
            "the data set `digits` comes with scikit-learn, which is not installed here",
            hint="pip install 'ptx[data]'",
        ) from error
    found = load()
    ink = torch.from_numpy(found.images).unsqueeze(1)
    labels = [int(label) for label in found.target]
    return PictureData(
        PictureArray(
            (ink * 255 / _LARGEST).round().to(torch.uint8),
            labels,
            tuple(str(name) for name in found.target_names),
        ),
        stratified(labels, validation=validation, test=test, seed=seed),
        image_size=8,
        source=f"{len(labels):,} digits of scikit-learn",
    )
