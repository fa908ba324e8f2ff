"""Opening a log for one look; nothing stays open, so hundreds of files need one descriptor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import UserError


@contextmanager
def opened(path: Path) -> Iterator[int | None]:
    """A descriptor for reading, None for a file that does not exist (yet).

    Raises UserError where it, or what is done with it, fails: permissions, a stale mount.
    """
    descriptor = None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"The log {path} cannot be read: {error.strerror or error}.",
        hint="Does the run belong to somebody else? `share: group` in a spec lets a group read it.",
    )
