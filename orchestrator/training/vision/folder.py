"""Images in folders, one folder a class."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.errors import UserError
from orchestrator.training.classification.split import TEST, TRAIN, VALIDATION, Split, stratified
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.vision.decoding import SUFFIXES, Unreadable, decoded

_PARTS = {TRAIN: ("train",), VALIDATION: ("validation", "valid", "val"), TEST: ("test",)}


@dataclass(frozen=True)
class Listing:
    """What a folder holds: found by one rank, told to the others, so that thousands of ranks do
    not walk through a shared file system at the same time."""

    root: Path
    classes: list[str]
    names: list[str]
    """Paths under `root`, by number."""
    labels: list[int]
    split: Split


def list_folder(root: Path, *, seed: int, validation: float = 0.1, test: float = 0.1) -> Listing:
    """`root`/CLASS/.../image, split by `seed`; or the same below `root`/train, val and test.

    Of a `root` with train, a missing val or test is cut from it. Files that are no images by
    their suffix are passed over. Raises UserError for a class without an image, or one that only
    a held-out part has.
    """
    parts = {
        part: folder
        for part, names in _PARTS.items()
        for name in names
        if (folder := root / name).is_dir()
    }
    if TRAIN not in parts:
        parts = {TRAIN: root}
    classes = _classes(parts[TRAIN])
    names: list[str] = []
    labels: list[int] = []
    numbers: dict[str, list[int]] = {}
    for part, folder in parts.items():
        first = len(names)
        for name in _classes(folder):
            found = _images(folder / name)
            names += [str(path.relative_to(root)) for path in found]
            labels += [_label(name, classes, folder)] * len(found)
        numbers[part] = list(range(first, len(names)))
    split = stratified(
        labels,
        validation=0.0 if VALIDATION in parts else validation,
        test=0.0 if TEST in parts else test,
        seed=seed,
        among=numbers[TRAIN],
    )
    return Listing(
        root,
        classes,
        names,
        labels,
        Split(
            split.train,
            numbers.get(VALIDATION, split.validation),
            numbers.get(TEST, split.test),
        ),
    )


def _classes(folder: Path) -> list[str]:
    try:
        found = sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    if not found:
        raise UserError(
            f"{folder} has no folder of images in it",
            hint="there must be one folder a class, with its images inside",
        )
    return found


def _images(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(
            f"the class folder {folder} has no image",
            hint=f"images end in {', '.join(sorted(SUFFIXES))}; take the folder away otherwise",
        )
    return found


def _label(name: str, classes: Sequence[str], folder: Path) -> int:
    if name not in classes:
        raise UserError(
            f"{folder} has a class {name} that the training images have not",
            hint=f"their classes are {', '.join(classes)}",
        )
    return classes.index(name)


class FolderPictures:
    """A listing's images, decoded when they are read, by a few threads."""

    channels = 3

    def __init__(
        self, listing: Listing, *, image_size: int, threads: int, skip_at_most: int = 0
    ) -> None:
        """`skip_at_most`: unreadable files that this rank may come across before it gives up."""
        self.classes, self.labels = listing.classes, listing.labels
        self.may_skip = skip_at_most > 0
        self._listing, self._size, self._skip_at_most = listing, image_size, skip_at_most
        self._unreadable: set[int] = set()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def read(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        found = list(self._pool.map(self._decoded, numbers))
        pixels = torch.zeros(len(found), 3, self._size, self._size, dtype=torch.uint8)
        readable = torch.ones(len(found), dtype=torch.bool)
        for place, (number, image) in enumerate(zip(numbers, found, strict=True)):
            if isinstance(image, Unreadable):
                readable[place] = False
                self._skip(number, image)
            else:
                pixels[place] = image
        return pixels, readable

    def _decoded(self, number: int) -> torch.Tensor | Unreadable:
        try:
            return decoded(self._path(number), self._size)
        except Unreadable as problem:
            return problem

    def _path(self, number: int) -> Path:
        return self._listing.root / self._listing.names[number]

    def _skip(self, number: int, problem: Unreadable) -> None:
        """Once a file, however many epochs it is met in."""
        self._unreadable.add(number)
        if len(self._unreadable) > self._skip_at_most:
            count = len(self._unreadable)
            raise TrainingFailed(
                f"cannot read the image {self._path(number)}: {problem}"
                + (f" (unreadable images so far: {count})" if count > 1 else ""),
                hint="mend or remove the file, or let entrypoint.args.skip_unreadable allow more",
            )
