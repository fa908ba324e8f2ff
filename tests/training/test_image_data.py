"""Pictures from files that others wrote: what is read, what is refused, who sees what."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.errors import UserError
from orchestrator.training.batch import IGNORED
from orchestrator.training.classification.split import stratified
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.vision.augmentation import Augmentation
from orchestrator.training.vision.cifar import load_cifar
from orchestrator.training.vision.dataset import InputFormat, PictureDataset
from orchestrator.training.vision.decoding import Unreadable, decoded
from orchestrator.training.vision.folder import FolderPictures, list_folder
from orchestrator.training.vision.pictures import PictureArray
from orchestrator.training.vision.plain_pickle import read_plain_pickle

COLOUR = InputFormat(8, 3, (0.5,) * 3, (0.5,) * 3)
PIXELS = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0))
PIXELS = PIXELS.to(torch.uint8)


def write_images(folder: Path, count: int = 4) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (10, 12), (40 * number, 200, 0)).save(folder / f"{number}.png")


def test_an_augmented_picture_depends_on_seed_number_and_epoch_alone() -> None:
    change = Augmentation(seed=3, crop=2, flip=True)
    together = change(PIXELS, range(6), [1] * 6)
    alone = [change(PIXELS[n : n + 1], [n], [1])[0] for n in range(6)]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(together, change(PIXELS, range(6), [2] * 6))
    assert not torch.equal(
        together, Augmentation(seed=4, crop=2, flip=True)(PIXELS, range(6), [1] * 6)
    )


def test_an_augmented_picture_is_a_shifted_or_mirrored_one() -> None:
    change = Augmentation(seed=0, crop=1, flip=True)
    padded = torch.nn.functional.pad(PIXELS[0], [1] * 4)
    crops = [padded[:, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    possible = crops + [crop.flip(2) for crop in crops]
    seen = set()
    for epoch in range(80):
        found = change(PIXELS[:1], [0], [epoch])[0]
        seen.add(next(n for n, crop in enumerate(possible) if torch.equal(crop, found)))
    assert len(seen) > 14


def test_a_stratified_split_holds_out_a_share_of_every_class_and_nothing_twice() -> None:
    labels = [0] * 50 + [1] * 10 + [2] * 3
    split = stratified(labels, validation=0.1, test=0.2, seed=1)
    assert sorted(split.train + split.validation + split.test) == list(range(63))
    assert [sum(labels[n] == c for n in split.test) for c in range(3)] == [10, 2, 1]
    assert [sum(labels[n] == c for n in split.validation) for c in range(3)] == [5, 1, 1]
    assert split == stratified(labels, validation=0.1, test=0.2, seed=1)
    assert split != stratified(labels, validation=0.1, test=0.2, seed=2)


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """As CIFAR-10 was published: what is text or bytes today was one kind of string then."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python_2(content: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def write_cifar(
    folder: Path,
    *,
    as_pickle: bool,
    labels: list[int],
    dumped: Callable[[object], bytes] = python_2,
) -> None:
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    for name in ("data_batch_1", "test_batch"):
        if as_pickle:
            content = {b"data": values, b"labels": labels, b"batch_label": b"1 of 1"}
            (folder / name).write_bytes(dumped(content))
        else:
            records = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], values], axis=1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())


@pytest.mark.parametrize(
    "dumped", [python_2, *(partial(pickle.dumps, protocol=number) for number in (2, 4))]
)
def test_both_published_versions_of_cifar_hold_the_same(
    tmp_path: Path, dumped: Callable[[object], bytes]
) -> None:
    labels = [0, 1, 2, 9] * 5
    write_cifar(tmp_path / "binary", as_pickle=False, labels=labels)
    write_cifar(tmp_path / "pickle", as_pickle=True, labels=labels, dumped=dumped)
    binary, pickled = (load_cifar(tmp_path / name, seed=0) for name in ("binary", "pickle"))
    assert isinstance(binary.pictures, PictureArray)
    assert isinstance(pickled.pictures, PictureArray)
    assert torch.equal(binary.pictures.pixels, pickled.pictures.pixels)
    assert binary.pictures.labels == pickled.pictures.labels == labels * 2
    assert binary.split == pickled.split
    assert binary.split.test == list(range(20, 40))
    assert not set(binary.split.train) & set(binary.split.validation)


@pytest.mark.parametrize("as_pickle", [False, True])
def test_a_cifar_label_out_of_range_names_file_and_record(tmp_path: Path, as_pickle: bool) -> None:
    write_cifar(tmp_path / "c", as_pickle=as_pickle, labels=[1, 2, 10, 3])
    with pytest.raises(UserError, match=r"data_batch_1.*, record 2: the label is 10"):
        load_cifar(tmp_path / "c", seed=0)


def test_a_cifar_file_cut_short_is_named(tmp_path: Path) -> None:
    write_cifar(tmp_path / "c", as_pickle=False, labels=[1, 2, 3])
    path = tmp_path / "c" / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"data_batch_1.bin has 9,119 bytes"):
        load_cifar(tmp_path / "c", seed=0)


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_can_call_nothing(tmp_path: Path, protocol: int) -> None:
    path, marker = tmp_path / "data_batch_1", tmp_path / "owned"
    path.write_bytes(pickle.dumps({b"data": Attack(marker)}, protocol=protocol))
    with pytest.raises(UserError, match="which data has no need of"):
        read_plain_pickle(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())  # noqa: S301 - the attack works where nothing stops it
    assert marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({b"data": np.array([object()])}, protocol=2),
        pickle.dumps({b"data": np.zeros(3)}, protocol=2),
        pickle.dumps([1], protocol=2),
        pickle.dumps({b"data": np.zeros(9, dtype=np.uint8)}, protocol=2)[:-20],
    ],
)
def test_other_pickles_are_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "test_batch"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"test_batch is no pickle"):
        read_plain_pickle(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_becomes_the_same_grey_square(tmp_path: Path, mode: str) -> None:
    size = (12, 8)
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 12), 65_535, dtype=np.uint16))
    else:
        image = Image.new("RGB", size, "white").convert(mode)
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    image.save(path)
    pixels = decoded(path, 4)
    assert pixels.shape == (3, 4, 4)
    assert pixels.dtype == torch.uint8
    assert pixels.min() >= 253


def test_what_is_transparent_is_white_and_sixteen_bits_keep_their_shades(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    assert decoded(tmp_path / "clear.png", 4).min() == 255
    Image.fromarray(np.full((4, 4), 32_768, dtype=np.uint16)).save(tmp_path / "half.png")
    assert decoded(tmp_path / "half.png", 4).unique().tolist() == [128]


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "x.png", exif=exif)
    pixels = decoded(tmp_path / "x.png", 8)
    assert pixels[:, :4].max() == 0
    assert pixels[:, 4:].min() == 255


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_damaged_files_are_unreadable_and_nothing_worse(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"x.{suffix}")
    whole = (tmp_path / f"x.{suffix}").read_bytes()
    for number, content in enumerate((b"", b"text", whole[: len(whole) // 2], whole[:20])):
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(content)
        with pytest.raises(Unreadable):
            decoded(path, 8)


def test_unreadable_images_have_no_target_until_there_are_too_many(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 5)
    write_images(tmp_path / "b", 5)
    (tmp_path / "a" / "1.png").write_bytes(b"broken")
    listing = list_folder(tmp_path, seed=0, validation=0.0, test=0.0)
    lenient = FolderPictures(listing, image_size=8, threads=2, skip_at_most=1)
    dataset = PictureDataset(lenient, listing.split.train, COLOUR)
    assert not dataset.uniform
    for _ in range(3):  # epochs: the same file counts once
        batch = dataset.take(range(10))
        assert (batch.weight, batch.skipped) == (9, 1)
        assert batch.targets.tolist() == [0, IGNORED, 0, 0, 0, 1, 1, 1, 1, 1]
    (tmp_path / "b" / "4.png").write_bytes(b"")
    with pytest.raises(TrainingFailed, match=r"b/4.png: .*\(unreadable images so far: 2\)"):
        dataset.take(range(10))
    strict = FolderPictures(listing, image_size=8, threads=2)
    with pytest.raises(TrainingFailed, match=r"cannot read the image .*a/1.png"):
        PictureDataset(strict, listing.split.train, COLOUR).take([1])


def test_a_folder_is_split_unless_it_comes_in_parts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "whole" / name, 10)
        write_images(tmp_path / "parts" / "train" / name, 10)
        write_images(tmp_path / "parts" / "val" / name, 2)
    whole = list_folder(tmp_path / "whole", seed=0)
    assert [len(part) for part in whole.split] == [16, 2, 2]
    parts = list_folder(tmp_path / "parts", seed=0)
    assert [len(part) for part in parts.split] == [18, 4, 2]
    assert {parts.names[number].split("/")[0] for number in parts.split.validation} == {"val"}
    assert parts.labels == [0] * 10 + [1] * 10 + [0] * 2 + [1] * 2


def test_folders_that_are_no_data_set_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no folder of images"):
        list_folder(tmp_path, seed=0)
    write_images(tmp_path / "train" / "a")
    write_images(tmp_path / "test" / "z")
    with pytest.raises(UserError, match="test has a class z that the training images have not"):
        list_folder(tmp_path, seed=0)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(UserError, match=r"the class folder .*train/empty has no image"):
        list_folder(tmp_path, seed=0)


def test_a_picture_is_brought_to_the_models_size_and_channels() -> None:
    grey = PictureArray(torch.full((2, 1, 6, 6), 255, dtype=torch.uint8), [1, 0], ["x", "y"])
    batch = PictureDataset(grey, [1, 0], COLOUR).take([0, 1])
    assert batch.inputs["pixel_values"].shape == (2, 3, 8, 8)
    assert batch.inputs["pixel_values"].unique().tolist() == [1.0]
    assert batch.targets.tolist() == [0, 1]
