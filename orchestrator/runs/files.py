"""Small durable file operations of the client."""

from __future__ import annotations

import os
from pathlib import Path


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


def make_folder(path: Path, mode: int) -> None:
    """Create one folder with exactly this mode, whatever the umask. Raises FileExistsError."""
    path.mkdir(mode=mode)
    path.chmod(mode)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; on filesystems that cannot, nothing happens."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network filesystems refuse to sync a folder
    finally:
        os.close(descriptor)
