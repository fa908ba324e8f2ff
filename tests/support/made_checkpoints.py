"""Checkpoints as ranks leave them, written without torch: for looking at, not for training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.checkpoints.commit import begin, commit
from orchestrator.checkpoints.manifest import Manifest
from orchestrator.checkpoints.names import step_folder
from orchestrator.checkpoints.regions import Box, Region, Span
from orchestrator.checkpoints.tensor_file import Held, write_tensors

DTYPES = {"float32": "F32", "int64": "I64", "uint8": "U8", "float16": "F16"}
SHAPE = (4, 6)


def whole_tensors(step: int) -> dict[str, np.ndarray]:
    """What the checkpoint of a step holds: parameters, and Adam's moments."""
    base = np.arange(24, dtype=np.float32).reshape(SHAPE) + step
    return {
        "model/a.weight": base,
        "model/a.bias": np.arange(6, dtype=np.float32) - step,
        "model/count": np.array(step, dtype=np.int64),
        "exp_avg/a.weight": base / 10,
        "exp_avg/a.bias": np.ones(6, dtype=np.float32),
    }


def cut(array: np.ndarray, region: Region) -> np.ndarray:
    """The elements of a region, in its own order."""
    if isinstance(region, Span):
        return array.reshape(-1)[region.start : region.stop]
    where = tuple(slice(o, o + n) for o, n in zip(region.offsets, region.lengths, strict=True))
    return np.ascontiguousarray(array[where]).reshape(-1)


def spread(rank: int, ranks: int) -> dict[str, Region]:
    """Columns of the matrix, rows of elements of the others, and what only rank 0 writes."""
    columns = SHAPE[1] // ranks
    part = 6 // ranks
    mine: dict[str, Region] = {
        "model/a.weight": Box((0, rank * columns), (SHAPE[0], columns)),
        "exp_avg/a.weight": Span(rank * 24 // ranks, (rank + 1) * 24 // ranks),
        "model/a.bias": Span(rank * part, (rank + 1) * part),
        "exp_avg/a.bias": Span(rank * part, (rank + 1) * part),
    }
    return mine | ({"model/count": Span(0, 1)} if rank == 0 else {})


def write_rank(
    folder: Path, rank: int, regions: Mapping[str, Region], tensors: Mapping[str, np.ndarray]
) -> Any:
    index = {key: [tensors[key].shape, region.to_json()] for key, region in regions.items()}
    held = {key: _held(cut(tensors[key], region)) for key, region in regions.items()}
    held["random/torch"] = _held(np.arange(5, dtype=np.uint8))
    path = folder / f"rank-{rank:05d}.safetensors"
    return write_tensors(path, held, {"ptx": json.dumps(index)})


def _held(array: np.ndarray) -> Held:
    flat = np.ascontiguousarray(array).reshape(-1)
    return Held(DTYPES[flat.dtype.name], flat.shape, memoryview(flat).cast("B"))


def made_checkpoint(
    run: Path,
    step: int,
    attempt: int = 0,
    *,
    ranks: int = 2,
    whole: bool = True,
    created: float = 1_700_000_000.0,
    strategy: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    regions: Sequence[Mapping[str, Region]] | None = None,
) -> Path:
    """`run`/checkpoints/step-...; without `whole` it lacks its manifest."""
    folder = step_folder(run / "checkpoints", step, attempt)
    begin(folder)
    tensors = whole_tensors(step) if tensors is None else tensors
    regions = [spread(rank, ranks) for rank in range(ranks)] if regions is None else regions
    files = [write_rank(folder.path, rank, mine, tensors) for rank, mine in enumerate(regions)]
    if whole:
        manifest = Manifest(
            run_id=run.name,
            step=step,
            attempt=attempt,
            created=created,
            world_size=len(files),
            strategy=strategy or {"name": "zero", "stage": 3},
            layout={"pipeline": 1, "replicate": 1, "shard": len(files), "tensor": 1},
            files=tuple(files),
            state={"step": step, "samples": 8 * step, "engine": {}},
            metrics=metrics or {"loss": 3.0 - step / 1000},
        )
        commit(folder.path, manifest, run / "no-attempts")
    return folder.path
