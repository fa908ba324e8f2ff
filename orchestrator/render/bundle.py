"""The bundle: everything a run executes, as bytes, before anything has run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BundleFile:
    path: str
    """Relative to the bundle folder."""
    data: bytes
    executable: bool = False
    binary: bool = False
    """Shown by size and hash instead of by content."""

    @property
    def sha256(self) -> str:
        import hashlib  # OpenSSL: others than `ptx submit` import this file

        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Bundle:
    run_id: str
    run_dir: Path
    scheduler: str
    files: tuple[BundleFile, ...]
    submit_argv: tuple[str, ...]
    """What `submit` executes: sbatch and the script, or the local supervisor."""

    def __iter__(self) -> Iterator[BundleFile]:
        return iter(self.files)

    def __getitem__(self, path: str) -> BundleFile:
        for file in self.files:
            if file.path == path:
                return file
        raise KeyError(path)
