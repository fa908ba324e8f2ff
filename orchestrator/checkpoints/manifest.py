"""The manifest: what a checkpoint consists of, and the mark that it is complete."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.checkpoints.names import MANIFEST
from orchestrator.errors import UserError

MANIFEST_VERSION = 1


class DamagedCheckpoint(UserError):
    """A checkpoint that cannot be loaded; names the file."""

    exit_code = 1
    code = "damaged-checkpoint"


@dataclass(frozen=True)
class FileEntry:
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Every field is public: removing or changing one needs a new MANIFEST_VERSION."""

    run_id: str
    step: int
    """Optimizer steps done."""
    attempt: int
    created: float
    """Seconds since the epoch."""
    world_size: int
    strategy: Mapping[str, Any]
    """As in plan.json."""
    layout: Mapping[str, int]
    """Ranks along pipeline, replicate, shard and tensor."""
    files: tuple[FileEntry, ...]
    state: Mapping[str, Any]
    """What is one number for all ranks: data position, loss scale, micro batch, ..."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    spec_sha256: str | None = None
    v: int = MANIFEST_VERSION

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def read_manifest(folder: Path) -> Manifest:
    """Raises DamagedCheckpoint where it is missing, torn, or of another version."""
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path} cannot be read: {error}") from error
    version = fields.get("v") if isinstance(fields, dict) else None
    if version != MANIFEST_VERSION:
        raise DamagedCheckpoint(
            f"{path} has version {version!r}, and this ptx reads version {MANIFEST_VERSION}"
        )
    try:
        files = tuple(FileEntry(**entry) for entry in fields.pop("files"))
        manifest = Manifest(**fields, files=files)
    except (TypeError, KeyError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path} is no manifest: {error}") from error
    for entry in files:
        if not _plain(entry.name):
            raise DamagedCheckpoint(f"{path} names {entry.name!r}, which is outside its folder")
    for name, kinds in _KINDS.items():
        value = getattr(manifest, name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise DamagedCheckpoint(f"{path} is no manifest: {name} is {value!r:.40}")
    return manifest


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("step", "attempt", "world_size"), int),
    **dict.fromkeys(("strategy", "layout", "state", "metrics", "versions"), dict),
    "run_id": str,
    "created": (int, float),
}


def _plain(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name
