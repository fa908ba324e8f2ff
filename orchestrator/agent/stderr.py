"""Sentences for whoever reads the scheduler's or the launcher's log."""

from __future__ import annotations

import contextlib
import os

SAID = "ptx: "
"""What begins every line of ptx's own among those of others; launch.sh writes it too."""


def tell(sentence: str) -> None:
    """Never raises: a reader that is gone or a full disk is no reason to end a run."""
    with contextlib.suppress(OSError):
        os.write(2, f"{SAID}{sentence}\n".encode("utf-8", "replace"))
