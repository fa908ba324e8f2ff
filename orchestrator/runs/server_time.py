"""How old a file of a run is, whatever the clocks of its writer and of this machine say.

A file's modification time is the file server's, which is one for all who read and write there. So
age is what the server's clock says now, less that time; and what it says now is told by a file
that was touched this moment.
"""

from __future__ import annotations

import contextlib
import os
import time

from orchestrator.runs.layout import RunLayout

PLAUSIBLE = 60.0
"""Seconds: an age up to this is believed without a look at the server's clock."""
_HOLDS = 60.0
"""Seconds for which a look at it counts, for all runs of one folder: a thousand silent runs are no
reason for a thousand files."""
_seen: dict[str, tuple[float, float]] = {}
"""By folder for runs: how far the server was ahead, and when that was seen (time.monotonic())."""


def age(layout: RunLayout, stamped: float, now: float) -> float:
    """Seconds since the file server gave a file of this run the time `stamped`. `now` is this
    machine's: one that is minutes ahead of the others must take no living run for a dead one."""
    seconds = now - stamped
    return seconds if abs(seconds) < PLAUSIBLE else seconds + _ahead(layout)


def _ahead(layout: RunLayout) -> float:
    """Seconds by which the server's clock is ahead of this machine's; 0 where nothing can be
    written, as in another user's run: then there is this machine's clock alone."""
    root, asked = os.path.dirname(layout.path), time.monotonic()  # noqa: PTH120 - text
    ahead, seen = _seen.get(root, (0.0, -_HOLDS))
    if asked - seen < _HOLDS:
        return ahead
    try:
        ahead = _touched(layout.path) - time.time()
    except OSError:
        return 0.0
    _seen[root] = ahead, asked
    return ahead


def _touched(folder: str) -> float:
    """The time that a file in this folder has when it is touched now. Raises OSError."""
    path = f"{folder}/.clock-{os.urandom(8).hex()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.utime(descriptor)  # without times: over NFS the server gives its own
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - text
