"""The pictures that an entrypoint's arguments name, as parts of a classifier's training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

from orchestrator.errors import UserError
from orchestrator.training.agreement import together
from orchestrator.training.classification.split import some_of
from orchestrator.training.classification.training import ClassifierData
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.vision.augmentation import Augmentation
from orchestrator.training.vision.cifar import is_cifar, load_cifar
from orchestrator.training.vision.dataset import InputFormat, PictureDataset
from orchestrator.training.vision.decoding import require_pillow
from orchestrator.training.vision.digits import load_digits
from orchestrator.training.vision.folder import FolderPictures, Listing, list_folder
from orchestrator.training.vision.pictures import PictureData

DIGITS = "digits"
FOLDER_SIZE = 224
"""Of images in a folder, whose files have many sizes, where nothing says another."""
_MOST_THREADS = 8


class PictureSettings(Protocol):
    """The part of an entrypoint's arguments that says which data; see the fields' own texts."""

    @property
    def data(self) -> str: ...
    @property
    def skip_unreadable(self) -> int: ...
    @property
    def crop(self) -> int: ...
    @property
    def flip(self) -> bool: ...


def load_pictures(
    settings: PictureSettings, plan: TrainingPlan, rank: Rank, *, image_size: int | None
) -> PictureData:
    """All ranks call it together. Files of any size are scaled to `image_size`.

    Raises UserError, on all ranks, for data that are not there or not what they should be.
    """
    seed = plan.training.seed
    folder = Path(settings.data)
    listing: Listing | None = None
    with together(rank):
        if settings.data == DIGITS:
            return load_digits(seed=seed)
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {settings.data} of images",
                hint="name one that every node sees, or `digits`",
            )
        if is_cifar(folder):
            return load_cifar(folder, seed=seed)
        require_pillow()
        if rank.is_main:
            listing = list_folder(folder, seed=seed)
    return _of_folder(_told(listing), settings, plan, image_size or FOLDER_SIZE)


def classifier_data(
    found: PictureData, wanted: InputFormat, settings: PictureSettings, plan: TrainingPlan
) -> ClassifierData:
    """Training pictures augmented, the others as they are."""
    seed, split = plan.training.seed, found.split
    changes = Augmentation(seed=seed, crop=settings.crop, flip=settings.flip)
    augmentation = changes if settings.crop or settings.flip else None
    seen = some_of(split.train, len(split.validation), seed=seed)
    return ClassifierData(
        train=PictureDataset(found.pictures, split.train, wanted, augmentation),
        seen=PictureDataset(found.pictures, seen, wanted),
        validation=PictureDataset(found.pictures, split.validation, wanted),
        test=PictureDataset(found.pictures, split.test, wanted),
        classes=found.pictures.classes,
        source=found.source,
    )


def _told(listing: Listing | None) -> Listing:
    """Rank 0's, on all ranks."""
    said = [listing]
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    (found,) = said
    if found is None:
        raise RuntimeError("rank 0 has listed no images")
    return found


def _of_folder(
    listing: Listing, settings: PictureSettings, plan: TrainingPlan, size: int
) -> PictureData:
    cores = len(os.sched_getaffinity(0)) // plan.procs_per_node
    pictures = FolderPictures(
        listing,
        image_size=size,
        threads=min(max(cores, 1), _MOST_THREADS),
        skip_at_most=settings.skip_unreadable,
    )
    source = f"{len(listing.names):,} images of {len(listing.classes)} classes in {listing.root}"
    return PictureData(pictures, listing.split, image_size=size, source=source)
