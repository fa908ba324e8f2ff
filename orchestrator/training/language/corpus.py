"""Text as bytes: where it comes from, and what of it is held out."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from orchestrator.errors import UserError

MAX_FOLDER_BYTES = 2 << 30
_PIECES, _PIECE_BYTES = 64, 1 << 14
_NOT_LIBRARY = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
)


@dataclass(frozen=True)
class Corpus:
    """uint8 tensors of shape (bytes,); `train` and `heldout` share no byte."""

    train: torch.Tensor
    heldout: torch.Tensor
    source: str
    """In words, for the log."""


def load_corpus(
    path: str | None, *, files: Sequence[Path] | None = None, heldout_share: float = 0.05
) -> Corpus:
    """Bytes of a text file (memory mapped), of a folder's files, or of Python's own library.

    Files are joined in the order of their relative paths, so every rank and every machine with
    the same files sees the same bytes; with `files` they are these, which `path` stands for. The
    last `heldout_share` of the bytes is held out.
    Raises UserError where there is nothing to read, or a folder is too large for memory.
    """
    try:
        text, source = _read(path, files)
    except OSError as error:
        raise UserError(f"cannot read the data {error.filename}: {error.strerror}") from error
    cut = len(text) - int(len(text) * heldout_share)
    return Corpus(text[:cut], text[cut:], f"{len(text):,} bytes, {source}")


def _read(path: str | None, found: Sequence[Path] | None) -> tuple[torch.Tensor, str]:
    if path is None:
        return _joined(library_files(), _library()), f"source of Python {platform.python_version()}"
    place = Path(path)
    if found is None and not place.is_dir():
        found = [place]
    if found is None:
        found = sorted(file for file in place.rglob("*") if file.is_file())
    if len(found) == 1 and not place.is_dir():
        return _mapped(found[0]), path
    return _joined(found, place), f"{len(found)} files in {path}"


def fingerprint(text: torch.Tensor) -> str:
    """A digest of the length of uint8 `text` and of pieces evenly spread over it."""
    digest = hashlib.blake2b(str(len(text)).encode(), digest_size=16)
    last = max(0, len(text) - _PIECE_BYTES)
    for number in range(_PIECES):
        start = last * number // (_PIECES - 1)
        digest.update(text[start : start + _PIECE_BYTES].numpy().tobytes())
    return digest.hexdigest()


def library_files() -> list[Path]:
    """The source files of Python's own library, without tests and installed packages, in order."""
    root = _library()
    return sorted(
        file
        for file in root.rglob("*.py")
        if _NOT_LIBRARY.isdisjoint(file.relative_to(root).parts) and file.is_file()
    )


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _joined(files: Sequence[Path], root: Path) -> torch.Tensor:
    size = sum(file.stat().st_size for file in files)
    if size == 0:
        raise UserError(
            f"{root} has no text to train on", hint="give the path of a text file with --data"
        )
    if size > MAX_FOLDER_BYTES:
        raise UserError(
            f"{root} holds {size:,} bytes, more than is read into every rank's memory",
            hint="join its files into one, which is memory mapped: find DIR -type f | sort | "
            "xargs cat > data.txt",
        )
    return torch.frombuffer(bytearray(b"\n".join(map(Path.read_bytes, files))), dtype=torch.uint8)


def _mapped(path: Path) -> torch.Tensor:
    with path.open("rb") as file:  # torch's own message for an unreadable file is no sentence
        size = file.seek(0, 2)
    if size == 0:
        raise UserError(f"the data file {path} is empty")
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
