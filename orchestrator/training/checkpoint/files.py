"""A rank's pieces in its file, and out of everybody's files again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orchestrator.checkpoints.manifest import DamagedCheckpoint, FileEntry, Manifest
from orchestrator.checkpoints.regions import Region, Span, overlap, region_from_json
from orchestrator.checkpoints.tensor_file import Held, TensorFile, write_tensors
from orchestrator.training.checkpoint.pieces import Piece
from orchestrator.training.errors import TrainingFailed

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
RANDOM = "random/"
"""Keys of a rank's own generators; they are nobody else's."""


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


@dataclass(frozen=True)
class Copied:
    """A piece as it was at the step, on the CPU: training goes on while it is written."""

    key: str
    shape: tuple[int, ...]
    region: Region
    tensor: torch.Tensor


def copied(pieces: Sequence[Piece]) -> list[Copied]:
    """This rank's share of its pieces. The only part of a save that training waits for."""
    found = []
    for piece in pieces:
        start, stop = piece.share()
        if start == stop:
            continue
        region = piece.region
        if isinstance(region, Span):
            region = Span(region.start + start, region.start + stop)
        part = piece.tensor.reshape(-1)[start:stop]
        target = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
        target.copy_(part, non_blocking=True)
        found.append(Copied(piece.key, piece.shape, region, target))
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
    return found


def write_rank_file(
    folder: Path, rank: int, parts: Sequence[Copied], random: Mapping[str, torch.Tensor], mode: int
) -> FileEntry:
    """Write this rank's file durably. Raises OSError."""
    index = {part.key: [part.shape, part.region.to_json()] for part in parts}
    tensors = {part.key: _held(part.tensor) for part in parts}
    tensors |= {RANDOM + name: _held(tensor) for name, tensor in random.items()}
    path = folder / rank_file(rank)
    return write_tensors(path, tensors, {"ptx": json.dumps(index)}, mode=mode)


def _held(tensor: torch.Tensor) -> Held:
    flat = tensor.contiguous().view(-1)
    return Held(_NAMES[tensor.dtype], tuple(flat.shape), _bytes(flat))


def _bytes(flat: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor; numpy knows no bfloat16, but bytes."""
    array: Any = flat.view(torch.uint8).numpy()
    return memoryview(array)


@dataclass(frozen=True)
class _Part:
    file: TensorFile
    region: Region
    dtype: torch.dtype


class Reader:
    """Fills pieces from a checkpoint, whatever strategy and world size wrote it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Raises DamagedCheckpoint, naming the file."""
        self._folder = folder
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._parts: dict[str, list[_Part]] = {}
        self._files = {entry.name: TensorFile(folder / entry.name) for entry in manifest.files}
        for file in self._files.values():
            self._index(file)

    def _index(self, file: TensorFile) -> None:
        try:
            for key, (shape, region) in json.loads(file.metadata["ptx"]).items():
                dtype = _DTYPES[file.tensors[key].dtype]
                self._shapes[key] = tuple(shape)
                self._parts.setdefault(key, []).append(_Part(file, region_from_json(region), dtype))
        except (KeyError, ValueError, TypeError) as error:
            raise DamagedCheckpoint(f"{file.path} has no index of ptx: {error!r}") from error

    def __contains__(self, key: str) -> bool:
        return key in self._parts

    def keys(self) -> set[str]:
        return set(self._parts)

    def fill(self, piece: Piece) -> None:
        """Put the saved values into the piece's tensor.

        Raises TrainingFailed where the checkpoint has no such tensor, another shape, or not all
        of its elements: it is then a checkpoint of another model.
        """
        if piece.key not in self._parts:
            raise TrainingFailed(
                f"{self._folder} has no {piece.key}: it is a checkpoint of another model, or "
                "of another choice of what is trained",
                hint="resume with the model, LoRA and trainable settings that the run began with",
            )
        if self._shapes[piece.key] != piece.shape:
            raise TrainingFailed(
                f"{piece.key} has the shape {list(piece.shape)} here and "
                f"{list(self._shapes[piece.key])} in {self._folder}",
                hint="resume with the model that the run began with",
            )
        target = torch.empty(piece.tensor.numel(), dtype=piece.tensor.dtype)
        filled = sum(self._copy(part, piece, target) for part in self._parts[piece.key])
        if filled != target.numel():
            raise DamagedCheckpoint(
                f"{self._folder} has {filled:,} of the {target.numel():,} elements of {piece.key}"
            )
        piece.tensor.copy_(target.view(piece.tensor.shape))

    def _copy(self, part: _Part, piece: Piece, target: torch.Tensor) -> int:
        runs = list(overlap(piece.region, part.region, piece.shape))
        if not runs:
            return 0
        first = min(start for _, start, _ in runs)
        last = max(start + count for _, start, count in runs)
        source = self._read(part, piece.key, first, last - first)
        for into, start, count in runs:
            target[into : into + count] = source[start - first : start - first + count]
        return sum(count for _, _, count in runs)

    def _read(self, part: _Part, key: str, first: int, count: int) -> torch.Tensor:
        data = torch.empty(count, dtype=part.dtype)
        part.file.read_into(key, first * part.dtype.itemsize, _bytes(data))
        return data

    def random(self, rank: int) -> dict[str, torch.Tensor]:
        """The generators of this rank; {} where no rank of that number wrote any."""
        file = self._files.get(rank_file(rank))
        if file is None:
            return {}
        found = {}
        for name, stored in file.tensors.items():
            if name.startswith(RANDOM):
                data = torch.empty(stored.bytes, dtype=torch.uint8)
                file.read_into(name, 0, _bytes(data))
                found[name.removeprefix(RANDOM)] = data
        return found

    def close(self) -> None:
        for file in self._files.values():
            file.close()
