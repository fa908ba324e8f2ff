"""Tensors in one file, in the safetensors format, written and hashed in one pass.

Format: 8 bytes of header length (little endian), a JSON header, the data
(https://github.com/huggingface/safetensors, "Format"). Written here rather than by the library,
which hashes nothing and wants all tensors at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.checkpoints.manifest import DamagedCheckpoint, FileEntry

_CHUNK = 8 << 20
_LOOKERS = 16
"""Threads that ask for sizes: to a file server each question is a round trip."""
_EACH = 512
"""Files of one of them."""
_LARGEST_HEADER = 100 << 20
_DAMAGE = {
    errno.ENOENT,
    errno.EIO,
    errno.EUCLEAN,  # of ext4 and XFS: the structure needs cleaning
    errno.EBADMSG,  # of XFS: a checksum
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ELOOP,
}


@dataclass(frozen=True)
class Held:
    """One tensor to write: its bytes, row by row, in the machine's (little-endian) order."""

    dtype: str
    """As safetensors names it: F32, BF16, I64, U8, ..."""
    shape: tuple[int, ...]
    data: memoryview


def write_tensors(
    path: Path, tensors: Mapping[str, Held], metadata: Mapping[str, str], *, mode: int = 0o600
) -> FileEntry:
    """Create `path` durably, and return its size and hash. Raises FileExistsError, OSError."""
    sizes = {name: (held.dtype, held.shape, held.data.nbytes) for name, held in tensors.items()}
    blocks = (held.data for held in tensors.values())
    return write_blocks(path, header(sizes, metadata), blocks, mode=mode)


def write_blocks(
    path: Path, head: bytes, blocks: Iterable[memoryview], *, mode: int = 0o600
) -> FileEntry:
    """The same with each tensor's bytes made when their turn has come, as `header` has them."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        os.fchmod(descriptor, mode)
        size = 0
        for block in chain((memoryview(head),), blocks):
            view = block.cast("B")
            for start in range(0, len(view), _CHUNK):
                chunk = view[start : start + _CHUNK]
                digest.update(chunk)
                _write_all(file.fileno(), chunk)
            size += len(view)
        os.fsync(descriptor)
    return FileEntry(path.name, size, digest.hexdigest())


def _write_all(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]


def header(
    sizes: Mapping[str, tuple[str, tuple[int, ...], int]], metadata: Mapping[str, str]
) -> bytes:
    """What stands before the data: of each tensor its dtype, shape and number of bytes."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape, count) in sizes.items():
        start, end = end, end + count
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # readers map the data, which wants an aligned start
    return len(text).to_bytes(8, "little") + text


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in its file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    """In bytes from the start of the file."""
    bytes: int


class TensorFile:
    """An open file of tensors. Nothing in it is executed or trusted: sizes are checked."""

    def __init__(self, path: Path) -> None:
        """Raises DamagedCheckpoint, naming the file, for what is no such file."""
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
            self.metadata, self.tensors = self._read_header()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedCheckpoint(f"{path} cannot be read: {error}") from error

    def _read_header(self) -> tuple[dict[str, str], dict[str, Stored]]:
        size = os.fstat(self._file.fileno()).st_size
        length = int.from_bytes(self._file.read(8), "little")
        if not 0 < length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError("its header is cut off")
        fields = json.loads(self._file.read(length))
        metadata = fields.pop("__metadata__", {})
        tensors: dict[str, Stored] = {}
        for name, entry in fields.items():
            start, end = entry["data_offsets"]
            if not 0 <= start <= end <= size - 8 - length:
                raise ValueError(f"{name} is cut off")
            tensors[name] = Stored(
                entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start
            )
        return metadata, tensors

    def read_into(self, name: str, first_byte: int, target: memoryview) -> None:
        """Fill `target` with the tensor's bytes from `first_byte` on."""
        stored = self.tensors[name]
        view = target.cast("B")
        if first_byte + len(view) > stored.bytes:
            raise DamagedCheckpoint(f"{self.path}: {name} has {stored.bytes} bytes")
        position = stored.offset + first_byte
        while view:
            count = os.preadv(self._file.fileno(), [view[: 1 << 30]], position)
            if not count:
                raise DamagedCheckpoint(f"{self.path} is cut off at byte {position}")
            view, position = view[count:], position + count

    def close(self) -> None:
        self._file.close()


def sha256_of(path: Path, *, chunk: int = _CHUNK) -> str:
    """Hash of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(chunk)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


class Mismatch(NamedTuple):
    """A file that is not there as it was written."""

    sentence: str
    unreadable: bool
    """Here and now: a file server that is away says nothing of what it holds."""


def mismatches(
    folder: Path, files: Sequence[FileEntry], *, pauses: Sequence[float] = ()
) -> list[Mismatch]:
    """One for each file that is missing, cut off, changed, or cannot be read.

    What cannot be read is tried again after each of `pauses`, in seconds: a server may be away for
    a moment, and a file system says EIO of that, too.
    """
    found = []
    for entry in files:
        path = folder / entry.name
        try:
            what = _patiently(partial(_what_is_wrong, path, entry), pauses)
            if what is not None:
                found.append(Mismatch(f"{path} {what}", unreadable=False))
        except OSError as error:
            found.append(_unread(path, error))
    return found


def wrong_sizes(folder: Path, files: Sequence[FileEntry]) -> list[Mismatch]:
    """One for each file that is missing, has another size, or cannot be looked at. Nothing is read
    of what is in it.

    A checkpoint of thousands of ranks has as many files: the folder is read first, with which an
    NFS server tells their sizes too, and what is still asked is asked by several at a time.
    """
    try:
        with os.scandir(folder) as entries:
            there = {entry.name: entry for entry in entries}
    except FileNotFoundError:
        there = {}
    except OSError as error:
        return [_unread(folder, error)]
    parts = [files[first : first + _EACH] for first in range(0, len(files), _EACH)]
    with ThreadPoolExecutor(_LOOKERS) as pool:
        # A listing may be older than the files: an NFS client keeps one for up to a minute.
        found = pool.map(
            lambda part: [_wrong_size(folder / one.name, there.get(one.name), one) for one in part],
            parts,
        )
        return [what for part in found for what in part if what is not None]


def _wrong_size(path: Path, there: os.DirEntry[str] | None, wanted: FileEntry) -> Mismatch | None:
    try:
        what = _other_size((there or path).stat().st_size, wanted)
    except FileNotFoundError:
        what = "is missing"
    except OSError as error:
        return _unread(path, error)
    return None if what is None else Mismatch(f"{path} {what}", unreadable=False)


def _unread(path: Path, error: OSError) -> Mismatch:
    return Mismatch(f"{path} cannot be read: {error.strerror}", unreadable=is_away(error))


def _other_size(size: int, wanted: FileEntry) -> str | None:
    if size == wanted.bytes:
        return None
    return f"has {size:,} bytes and was written with {wanted.bytes:,}"


def _what_is_wrong(path: Path, entry: FileEntry) -> str | None:
    """Raises OSError."""
    try:
        if what := _other_size(path.stat().st_size, entry):
            return what
        if sha256_of(path) != entry.sha256:
            return "is not what was written: its hash differs"
    except FileNotFoundError:
        return "is missing"
    return None


def _patiently(look: Callable[[], str | None], pauses: Sequence[float]) -> str | None:
    for pause in pauses:
        try:
            return look()
        except OSError:
            time.sleep(pause)
    return look()


def is_away(error: OSError) -> bool:
    """Whether the way to a file failed, and not what lies there."""
    return error.errno not in _DAMAGE


def is_unreadable(damage: DamagedCheckpoint) -> bool:
    """Whether what is called damaged only could not be read, and may be whole."""
    return isinstance(damage.__cause__, OSError) and is_away(damage.__cause__)
