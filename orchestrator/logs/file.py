"""Opening a log for one look."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.runs.reading import open_regular


@contextmanager
def opened(path: Path) -> Iterator[int | None]:
    """A descriptor for reading, None for a file that does not exist (yet).

    Raises UserError where it, or what is done with it, fails: permissions, a stale mount.
    """
    descriptor = None
    try:
        descriptor, _ = open_regular(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        yield descriptor
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        if descriptor is not None:
            os.close(descriptor)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """`size` bytes, fewer only at the end of the file. Raises OSError."""
    data = os.pread(descriptor, size, offset)
    if not data or len(data) == size:
        return data
    pieces, got = [data], len(data)
    while got < size and (data := os.pread(descriptor, size - got, offset + got)):
        pieces.append(data)
        got += len(data)
    return b"".join(pieces)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"The log {path} cannot be read: {error.strerror or error}.",
        hint="Does the run belong to somebody else? `share: group` in a spec lets a group read it.",
    )
