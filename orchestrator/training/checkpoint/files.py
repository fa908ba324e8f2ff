"""A rank's pieces in its file, and out of everybody's files again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator.checkpoints.manifest import DamagedCheckpoint, FileEntry, Manifest
from orchestrator.checkpoints.regions import Region, Span, overlap
from orchestrator.checkpoints.tensor_file import Held, TensorFile, write_tensors
from orchestrator.training.checkpoint.pieces import MODEL, Piece, is_own, kind_of, words
from orchestrator.training.checkpoint.rank_file import (
    DTYPES,
    RANDOM,
    Part,
    index_as_metadata,
    index_of,
    rank_file,
)
from orchestrator.training.checkpoint.reading import Run, search_order, windows
from orchestrator.training.errors import NotSupported, TrainingFailed

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SUFFIX = ".safetensors"
_OPEN_FILES = 64
_WINDOW = 32 << 20
"""Bytes read at once, where they are not all wanted or are of another format."""
_GAP = 64 << 10
"""Bytes that are rather read in vain than stepped over."""


@dataclass(frozen=True)
class Copied:
    """A piece as it was at the step, on the CPU: training goes on while it is written."""

    key: str
    shape: tuple[int, ...]
    region: Region
    tensor: torch.Tensor
    trained: bool = False


def copied(
    pieces: Sequence[Piece], buffers: Mapping[str, torch.Tensor] | None = None
) -> list[Copied]:
    """This rank's share of its pieces. The only part of a save that training waits for.

    `buffers` are an earlier copy's tensors by key, to be written over: fresh memory costs as much
    time as the copy. Raises NotSupported for a number format that the files have no name for.
    """
    found = []
    for piece in pieces:
        if piece.tensor.dtype not in _NAMES:
            raise NotSupported(
                f"checkpoints have no format for {words(piece.key)}, which is {piece.tensor.dtype}"
            )
        start, stop = piece.share()
        if start == stop:
            continue
        region = piece.region
        if isinstance(region, Span):
            region = Span(region.start + start, region.start + stop)
        part = piece.tensor.reshape(-1)[start:stop]
        target = (buffers or {}).get(piece.key)
        if target is None or (target.shape, target.dtype) != (part.shape, part.dtype):
            target = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
        target.copy_(part, non_blocking=True)
        found.append(Copied(piece.key, piece.shape, region, target, piece.trained))
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
    return found


def write_rank_file(
    folder: Path, rank: int, parts: Sequence[Copied], random: Mapping[str, torch.Tensor], mode: int
) -> FileEntry:
    """Write this rank's file durably. Raises OSError."""
    metadata = index_as_metadata({part.key: (part.shape, part.region) for part in parts})
    tensors = {part.key: _held(part.tensor) for part in parts}
    tensors |= {RANDOM + name: _held(tensor) for name, tensor in random.items()}
    return write_tensors(folder / rank_file(rank), tensors, metadata, mode=mode)


def _held(tensor: torch.Tensor) -> Held:
    flat = tensor.contiguous().view(-1)
    return Held(_NAMES[tensor.dtype], tuple(flat.shape), _bytes(flat))


def _bytes(flat: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor; numpy knows no bfloat16, but bytes."""
    array: Any = flat.view(torch.uint8).numpy()
    return memoryview(array)


class Reader:
    """Fills pieces from a checkpoint, whatever strategy and world size wrote it.

    Opens files as it needs them, and of them reads what is wanted: beside the model, a process
    holds one piece at a time.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, near: float = 0.0) -> None:
        """`near` is this rank's number as a share of the world's size: where to look first."""
        self.folder = folder
        self.names = [entry.name for entry in manifest.files if entry.name.endswith(_SUFFIX)]
        self._order = [self.names[number] for number in search_order(len(self.names), near)]
        self._indices: dict[str, dict[str, Part]] = {}
        self._open: OrderedDict[str, TensorFile] = OrderedDict()

    def fill(self, piece: Piece) -> None:
        """Put the saved values into the piece's tensor, cast to its format.

        Raises TrainingFailed where the checkpoint has no such tensor or one of another shape: it
        is then one of another model. Raises DamagedCheckpoint where elements are missing.
        """
        if not piece.tensor.numel():
            return
        target = torch.empty(piece.tensor.numel(), dtype=piece.tensor.dtype)
        filled: list[tuple[int, int]] = []
        missing = target.numel()
        for name, part in self._parts(piece.key):
            self._check_shape(piece, part)
            wanted = list(overlap(piece.region, part.region, piece.shape))
            self._copy(name, part, piece.key, wanted, target)
            filled += [(into, count) for into, _, count in wanted]
            missing -= sum(count for _, _, count in wanted)
            if missing <= 0:
                break
        self._check_filled(piece, filled)
        with torch.no_grad():
            piece.tensor.copy_(target.view(piece.tensor.shape))

    def _parts(self, key: str) -> Iterator[tuple[str, Part]]:
        """Files that have some of it, the likely ones first."""
        found = False
        for name in self._order:
            part = self.index(name).get(key)
            if part is not None:
                found = True
                yield name, part
        if not found:
            raise self.absent(key)

    def absent(self, key: str) -> TrainingFailed:
        """What to say of a tensor that the checkpoint does not have."""
        kinds = {kind_of(known) for index in self._indices.values() for known in index}
        if kind_of(key) in {MODEL, *kinds}:
            return TrainingFailed(
                f"{self.folder} has no {words(key)}: it is a checkpoint of another model, or "
                "of another choice of what is trained",
                hint="resume with the model, LoRA and trainable settings that the run began with",
            )
        has = " and ".join(sorted(kinds - {MODEL})) or "no state of an optimizer"
        return TrainingFailed(
            f"{self.folder} has no {words(key)}, but {has}: another optimizer has written it",
            hint="resume with the training.optimizer settings that the run began with",
        )

    def _check_shape(self, piece: Piece, part: Part) -> None:
        if part.shape != piece.shape:
            raise TrainingFailed(
                f"{words(piece.key)} has the shape {list(piece.shape)} here and "
                f"{list(part.shape)} in {self.folder}",
                hint="resume with the model that the run began with",
            )

    def _check_filled(self, piece: Piece, filled: list[tuple[int, int]]) -> None:
        """Each element once: a count alone would take one that is there twice for another."""
        position = 0
        for into, count in sorted(filled):
            if into != position:
                break
            position += count
        if position != piece.tensor.numel():
            raise DamagedCheckpoint(
                f"{self.folder} does not have each element of {words(piece.key)} once"
            )

    def _copy(
        self, name: str, part: Part, key: str, wanted: Iterable[Run], target: torch.Tensor
    ) -> None:
        size = part.dtype.itemsize
        for window in windows(wanted, most=_WINDOW // size, gap=_GAP // size):
            into, first, count = window[0]
            if len(window) == 1 and part.dtype == target.dtype:
                self._read(name, part, key, first, target[into : into + count])
                continue
            last = window[-1][1] + window[-1][2]
            data = torch.empty(last - first, dtype=part.dtype)
            self._read(name, part, key, first, data)
            for into, start, count in window:
                target[into : into + count] = data[start - first : start - first + count]

    def _read(self, name: str, part: Part, key: str, first: int, target: torch.Tensor) -> None:
        self._file(name).read_into(key, first * part.dtype.itemsize, _bytes(target))

    def index(self, name: str) -> dict[str, Part]:
        """What a file of the checkpoint holds. Raises DamagedCheckpoint."""
        if name not in self._indices:
            self._indices[name] = index_of(self._file(name))
        return self._indices[name]

    def keys(self, names: Iterable[str]) -> set[str]:
        """What these files hold for all: without what a rank alone reads."""
        return {key for name in names for key in self.index(name) if not is_own(key)}

    def _file(self, name: str) -> TensorFile:
        if name not in self._open:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[name] = TensorFile(self.folder / name)
        self._open.move_to_end(name)
        return self._open[name]

    def random(self, rank: int) -> dict[str, torch.Tensor]:
        """The generators of this rank; {} where no rank of that number wrote any."""
        if rank_file(rank) not in self.names:
            return {}
        file = self._file(rank_file(rank))
        found = {}
        for name, stored in file.tensors.items():
            if name.startswith(RANDOM):
                data = torch.empty(stored.bytes, dtype=torch.uint8)
                file.read_into(name, 0, _bytes(data))
                found[name.removeprefix(RANDOM)] = data
        return found

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
