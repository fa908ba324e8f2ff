"""A file that somebody asked a command to write, `-` for stdout."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.cli.output import emit_bytes
from orchestrator.errors import UserError
from orchestrator.runs.files import replace

STDOUT = "-"


def put(target: str, data: bytes, mode: int | None = None) -> None:
    """Whoever reads the file sees the old one or the new one, never half of it; a link, a device or
    a pipe is written to and stays what it is. `mode` where it is not to be what the file has, or
    the umask leaves. Raises UserError."""
    if target == STDOUT:
        emit_bytes(data)
        return
    path = Path(os.path.realpath(target))
    try:
        old = _mode(path)
        if old is not None and not stat.S_ISREG(old):
            path.write_bytes(data)
            return
        kept = _usual() if old is None else stat.S_IMODE(old)
        replace(path, data, kept if mode is None else mode)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(
            f"{target} cannot be written: {error.strerror}.",
            hint="Give a file in a folder that is there and yours to write.",
        ) from error


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _usual() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
