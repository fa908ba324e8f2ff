"""Small durable file operations of the client."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

_ABANDONED_SECONDS = 60.0


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Create `path` with exactly these bytes and permissions, durably.

    The mode holds whatever the umask. Raises FileExistsError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def replace(path: Path, data: bytes, mode: int) -> None:
    """Put these bytes at `path` by rename: a reader sees the old file or the new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    try:
        write_new(scratch, data, mode)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def put_mark(path: Path, data: bytes, mode: int) -> None:
    """Write `path`, the mark that its folder is complete. What lies beside it, synced by whoever
    wrote it, has its name durably before the mark is there, and the mark when this returns."""
    sync_folder(path.parent)
    replace(path, data, mode)
    sync_folder(path.parent)


def sync_tree(folder: Path) -> None:
    """Make all that is in a folder durable, written by whatever library. Raises OSError."""
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)
        else:
            _sync_file(path)


def put_folder(fresh: Path, place: Path, *, aside: Path | None = None) -> None:
    """Give the folder `fresh`, all of which is on the disk, the name `place`: a reader finds all of
    it or nothing, and it is there durably when this returns.

    What has the name already goes `aside`; without that this fails where there are files in it.
    Raises OSError.
    """
    if aside is not None and place.exists():
        place.rename(aside)
    fresh.rename(place)
    sync_folder(place.parent)


def make_folder(path: Path, mode: int) -> None:
    """Create one folder with exactly this mode, whatever the umask. Raises FileExistsError."""
    path.mkdir(mode=mode)
    path.chmod(mode)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; on filesystems that cannot, nothing happens."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # one to put files into, and not to be read
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network filesystems refuse to sync a folder
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def made_alone(path: Path, line: bytes, mode: int) -> Path:
    """`path`, made by this client and no other, where the file system has no hard links; beside it
    where a client died over it. Raises FileExistsError where another has it, OSError."""
    for name in (path, *(path.with_stem(f"{path.stem}-{again}") for again in range(1, 100))):
        try:
            write_new(name, line, mode)
        except FileExistsError:
            if not _is_abandoned(name):
                raise
        else:
            return name
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _is_abandoned(path: Path) -> bool:
    """Whether whoever made it has died before a line was in it."""
    found = path.stat()
    return not found.st_size and time.time() - found.st_mtime > _ABANDONED_SECONDS
