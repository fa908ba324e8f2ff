"""The whole tensors of a checkpoint, put together from what its ranks wrote, one at a time."""

from __future__ import annotations

import json
import math
import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from orchestrator.checkpoints.manifest import DamagedCheckpoint, Manifest
from orchestrator.checkpoints.regions import Region, fits, region_from_json, runs
from orchestrator.checkpoints.tensor_file import TensorFile

ITEM_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_OWN = "rank/"
"""Of what a rank alone holds, beside what all of them make up."""
_OPEN_FILES = 128
"""At once: a checkpoint of 8,192 ranks has more files than a process may open."""
_LARGEST_READ = 1 << 30


@dataclass(frozen=True)
class _Part:
    path: Path
    offset: int
    """In bytes from the start of the file."""
    region: Region


@dataclass(frozen=True)
class Whole:
    """One tensor, wherever its parts lie."""

    key: str
    dtype: str
    """As safetensors names it."""
    shape: tuple[int, ...]
    item_bytes: int
    parts: tuple[_Part, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.item_bytes


class Checkpoint:
    """A checkpoint opened for reading. Raises DamagedCheckpoint, naming the file."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self._descriptors: OrderedDict[Path, int] = OrderedDict()
        self.tensors: dict[str, Whole] = {}
        for entry in manifest.files:
            if entry.name.endswith(".safetensors"):
                self._index(folder / entry.name)

    def _index(self, path: Path) -> None:
        file = TensorFile(path)
        try:
            for key, (shape, region) in json.loads(file.metadata["ptx"]).items():
                if not key.startswith(_OWN):
                    self._add(key, tuple(shape), region_from_json(region), file)
        except (AttributeError, KeyError, ValueError, TypeError) as error:
            raise DamagedCheckpoint(f"{path} has no index of ptx: {error!r}") from error
        finally:
            file.close()

    def _add(self, key: str, shape: tuple[int, ...], region: Region, file: TensorFile) -> None:
        stored = file.tensors[key]
        size = ITEM_BYTES[stored.dtype]
        if not fits(region, shape) or stored.bytes != size * region.numel:
            raise ValueError(f"{key} has {stored.bytes} bytes for {region} of {list(shape)}")
        part = _Part(file.path, stored.offset, region)
        known = self.tensors.get(key, Whole(key, stored.dtype, shape, size, ()))
        if (known.dtype, known.shape) != (stored.dtype, shape):
            raise ValueError(f"{key} is {known.dtype} {list(known.shape)} in another file")
        self.tensors[key] = replace(known, parts=(*known.parts, part))

    def read(self, key: str) -> memoryview:
        """The bytes of one tensor, row by row; nothing but them is in memory.

        Raises DamagedCheckpoint where an element is in no file, or in several.
        """
        tensor = self.tensors[key]
        data = memoryview(bytearray(tensor.bytes))
        filled = [run for part in tensor.parts for run in self._read_part(part, tensor, data)]
        position = 0
        for start, count in sorted(filled):
            if start != position:
                break
            position += count
        if position * tensor.item_bytes != tensor.bytes:
            raise DamagedCheckpoint(f"{self.folder} does not have each element of {key} once")
        return data

    def _read_part(self, part: _Part, tensor: Whole, data: memoryview) -> list[tuple[int, int]]:
        """Where it has filled `data`: first element and number of each run."""
        size, filled = tensor.item_bytes, []
        for start, from_, count in runs(part.region, tensor.shape):
            target = data[start * size : (start + count) * size]
            self._fill(part.path, part.offset + from_ * size, target)
            filled.append((start, count))
        return filled

    def _fill(self, path: Path, position: int, target: memoryview) -> None:
        while target:
            try:
                count = os.preadv(self._opened(path), [target[:_LARGEST_READ]], position)
            except OSError as error:
                raise DamagedCheckpoint(f"{path} cannot be read: {error.strerror}.") from error
            if not count:
                raise DamagedCheckpoint(f"{path} is cut off at byte {position}")
            target, position = target[count:], position + count

    def _opened(self, path: Path) -> int:
        found = self._descriptors.pop(path, None)
        if found is None:
            found = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._descriptors) >= _OPEN_FILES:
                os.close(self._descriptors.popitem(last=False)[1])
        self._descriptors[path] = found
        return found

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
