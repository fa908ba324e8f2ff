"""A checkpoint in whole tensors: a folder that any engine on any number of ranks can load, or the
model's weights alone for any program that reads safetensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.checkpoints.manifest import FileEntry, Manifest
from orchestrator.checkpoints.names import MANIFEST
from orchestrator.checkpoints.regions import Span
from orchestrator.checkpoints.tensor_file import header, write_blocks
from orchestrator.checkpoints.verify import refuse_damage, while_read
from orchestrator.checkpoints.whole import Checkpoint, Whole
from orchestrator.errors import Conflict, UserError
from orchestrator.runs.files import make_folder, put_mark, sync_folder

SHARD_BYTES = 5_000_000_000
"""As transformers cuts a model into files."""
_MODEL = "model/"
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Converted:
    files: tuple[FileEntry, ...]
    tensors: int

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def convert(
    folder: Path,
    manifest: Manifest,
    output: Path,
    *,
    weights_only: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Converted:
    """Write the tensors of the checkpoint in `folder`, each whole, into the new folder `output`.

    With the optimizer's state the result is a checkpoint of one rank, manifest and all (random
    generators belong to ranks and stay behind); with `weights_only` it is what transformers calls
    a sharded model, by the names of the model's own state dict. One tensor at a time is in memory.
    Raises Conflict where `output` is there, UserError where it cannot be written, and
    DamagedCheckpoint, before anything is written: a damaged byte must not get a sound hash. What
    fails, also since the run deletes the checkpoint meanwhile (DeletedCheckpoint), leaves nothing.
    """
    refuse_damage(folder, manifest)
    with while_read(folder), Checkpoint(folder, manifest) as checkpoint:
        tensors = [
            tensor
            for key, tensor in sorted(checkpoint.tensors.items())
            if key.startswith(_MODEL) or not weights_only
        ]
        try:
            make_folder(output, 0o700)
            sync_folder(output.parent)
        except FileExistsError as error:
            raise Conflict(f"{output} exists already.", hint="Name a new folder.") from error
        except OSError as error:
            raise _cannot(output, error) from error
        try:
            shards = list(_shards(tensors, shard_bytes))
            files = _write(checkpoint, shards, output, weights_only=weights_only)
            if not weights_only:
                put_mark(output / MANIFEST, _of_one_rank(manifest, files).to_json(), 0o600)
            elif len(files) > 1:  # one file alone needs no index
                put_mark(output / _INDEX, _index(shards, files), 0o600)
            else:
                sync_folder(output)
        except BaseException as error:  # Ctrl-C as well: half of it helps nobody
            shutil.rmtree(output, ignore_errors=True)
            if isinstance(error, OSError):
                raise _cannot(output, error) from error
            raise
    return Converted(files, len(tensors))


def _shards(tensors: Iterable[Whole], limit: int) -> Iterator[list[Whole]]:
    shard: list[Whole] = []
    for tensor in tensors:
        if shard and sum(one.bytes for one in shard) + tensor.bytes > limit:
            yield shard
            shard = []
        shard.append(tensor)
    if shard:
        yield shard


def _write(
    checkpoint: Checkpoint, shards: Sequence[Sequence[Whole]], output: Path, *, weights_only: bool
) -> tuple[FileEntry, ...]:
    stem = "model" if weights_only else "tensors"
    files = []
    for number, shard in enumerate(shards, 1):
        part = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        index = {tensor.key: [tensor.shape, _everything(tensor)] for tensor in shard}
        metadata = {"format": "pt"} if weights_only else {"ptx": json.dumps(index)}
        sizes = {
            _name(tensor, weights_only): (tensor.dtype, tensor.shape, tensor.bytes)
            for tensor in shard
        }
        files.append(
            write_blocks(
                output / f"{stem}{part}.safetensors",
                header(sizes, metadata),
                (checkpoint.read(tensor.key) for tensor in shard),
            )
        )
    return tuple(files)


def _name(tensor: Whole, weights_only: bool) -> str:
    return tensor.key.removeprefix(_MODEL) if weights_only else tensor.key


def _everything(tensor: Whole) -> object:
    return Span(0, tensor.bytes // tensor.item_bytes).to_json()


def _index(shards: Sequence[Sequence[Whole]], files: Sequence[FileEntry]) -> bytes:
    """Where each tensor lies."""
    where = {
        _name(tensor, True): file.name
        for shard, file in zip(shards, files, strict=True)
        for tensor in shard
    }
    total = sum(tensor.bytes for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    return (json.dumps(index, indent=2) + "\n").encode()


def _of_one_rank(manifest: Manifest, files: tuple[FileEntry, ...]) -> Manifest:
    engine = dict(manifest.state.get("engine") or {})
    # It says that each rank has tensors of its own here, which have stayed behind.
    engine.pop("local_sgd", None)
    return replace(
        manifest,
        state={**manifest.state, "engine": engine},
        world_size=1,
        strategy={"name": "ddp"},
        layout=dict.fromkeys(manifest.layout, 1),
        files=files,
    )


def _cannot(output: Path, error: OSError) -> UserError:
    return UserError(
        f"{output} cannot be written: {error.strerror or error}.",
        hint="Name a folder on a disk with room for it; nothing of the checkpoint was changed.",
    )
