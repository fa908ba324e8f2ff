"""What a rank's file is called, and what it says about the tensors in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from orchestrator.checkpoints.manifest import DamagedCheckpoint
from orchestrator.checkpoints.regions import Region, fits, region_from_json
from orchestrator.checkpoints.tensor_file import TensorFile

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By the names of the safetensors format."""
RANDOM = "random/"
"""Keys of a rank's own generators; they are nobody else's, and in no index."""
_METADATA = "ptx"


@dataclass(frozen=True)
class Part:
    """Which elements of which whole tensor a file holds under a key."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    region: Region
    dtype: torch.dtype


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def index_as_metadata(index: Mapping[str, tuple[tuple[int, ...], Region]]) -> dict[str, str]:
    """The file's metadata: of each key the whole tensor's shape and the region held."""
    entries = {key: [shape, region.to_json()] for key, (shape, region) in index.items()}
    return {_METADATA: json.dumps(entries, separators=(",", ":"))}


def index_of(file: TensorFile) -> dict[str, Part]:
    """Raises DamagedCheckpoint, naming the file, where it has none or one that is not its own."""
    try:
        entries = json.loads(file.metadata[_METADATA])
        return {key: _part(file, key, *entry) for key, entry in entries.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{file.path} has no index of ptx: {error!r}") from error


def _part(file: TensorFile, key: str, shape: list[int], region_json: object) -> Part:
    stored, region = file.tensors[key], region_from_json(region_json)
    part = Part(tuple(shape), region, DTYPES[stored.dtype])
    size = region.numel * part.dtype.itemsize
    if not fits(region, part.shape) or math.prod(stored.shape) != region.numel:
        raise ValueError(f"{key} has the shape {list(stored.shape)}, and is said to be {part}")
    if stored.bytes != size:
        raise ValueError(f"{key} has {stored.bytes} bytes instead of {size}")
    return part
