"""CIFAR-10 (Krizhevsky 2009) in the files as published: the binary or the Python version."""

from __future__ import annotations

from pathlib import Path

import torch

from orchestrator.errors import UserError
from orchestrator.training.classification.split import stratified
from orchestrator.training.vision.pictures import PictureArray, PictureData
from orchestrator.training.vision.plain_pickle import read_plain_pickle

SIZE = 32
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_PIXELS = 3 * SIZE * SIZE
_NAMES = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = "test_batch"


def is_cifar(folder: Path) -> bool:
    """Whether the folder holds CIFAR-10's files, in either version."""
    return any((folder / name).is_file() for name in (f"{_TEST}.bin", _TEST))


def load_cifar(folder: Path, *, seed: int, validation: float = 0.1) -> PictureData:
    """50,000 pictures to train on, of which a share of each class is held out, and 10,000 to test.

    Batches that are not there are left out, as long as one is. Raises UserError, naming file and
    record, for a file that is cut short or a label that is no class.
    """
    binary = (folder / f"{_TEST}.bin").is_file()
    suffix, read = (".bin", _read_binary) if binary else ("", _read_pickle)
    training = [path for name in _NAMES if (path := folder / f"{name}{suffix}").is_file()]
    if not training:
        raise UserError(f"{folder} has a {_TEST}{suffix} and no {_NAMES[0]}{suffix} to train on")
    parts = [read(path) for path in [*training, folder / f"{_TEST}{suffix}"]]
    labels = [label for _, part in parts for label in part]
    count = len(labels) - len(parts[-1][1])
    split = stratified(labels, validation=validation, test=0.0, seed=seed, among=range(count))
    return PictureData(
        PictureArray(torch.cat([pixels for pixels, _ in parts]), labels, CLASSES),
        split._replace(test=list(range(count, len(labels)))),
        image_size=SIZE,
        source=f"{len(labels):,} pictures of CIFAR-10 in {folder}",
    )


def _read_binary(path: Path) -> tuple[torch.Tensor, list[int]]:
    """Records of one byte of label and the pixels by channel, row and column."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    whole, rest = divmod(len(content), 1 + _PIXELS)
    if rest or not whole:
        raise UserError(
            f"{path} has {len(content):,} bytes, which are no whole number of records of "
            f"{1 + _PIXELS:,}",
            hint="unpack the published archive again",
        )
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(whole, 1 + _PIXELS)
    return _checked(path, records[:, 1:], records[:, 0].tolist())


def _read_pickle(path: Path) -> tuple[torch.Tensor, list[int]]:
    found = read_plain_pickle(path)
    pixels, labels = found.get(b"data"), found.get(b"labels")
    if not isinstance(pixels, torch.Tensor) or not isinstance(labels, list):
        raise UserError(f"{path} has no `data` and `labels` as CIFAR-10 has them")
    if pixels.shape != (len(labels), _PIXELS) or not labels:
        raise UserError(
            f"{path} has {len(labels)} labels and data of shape {tuple(pixels.shape)}, "
            f"not ({len(labels)}, {_PIXELS})"
        )
    return _checked(path, pixels, labels)


def _checked(path: Path, pixels: torch.Tensor, labels: list[int]) -> tuple[torch.Tensor, list[int]]:
    for record, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < len(CLASSES):
            raise UserError(
                f"{path}, record {record}: the label is {label!r}, and CIFAR-10 has the classes "
                f"0 to {len(CLASSES) - 1}"
            )
    return pixels.reshape(-1, 3, SIZE, SIZE), labels
