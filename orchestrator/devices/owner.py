"""Who runs a process, from /proc."""

from __future__ import annotations

import pwd
from pathlib import Path

_COMMAND_LENGTH = 200


def user(pid: int) -> str | None:
    """Login name, the uid where it has none, None when the process is gone or hidden."""
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def command(pid: int) -> str | None:
    """Its command line, cut at 200 characters and free of control characters."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    text = line.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else "?" for c in text)[:_COMMAND_LENGTH]


def run_id(pid: int) -> str | None:
    """PTX_RUN_ID of its environment; None where it has none or is another user's."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for item in environment.split(b"\0"):
        if item.startswith(b"PTX_RUN_ID="):
            return item[len(b"PTX_RUN_ID=") :].decode("utf-8", "replace")
    return None
