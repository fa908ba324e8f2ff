"""Sentences for whoever reads the scheduler's or the launcher's log."""

from __future__ import annotations

import contextlib
import os


def tell(sentence: str) -> None:
    """Never raises: a reader that is gone or a full disk is no reason to end a run."""
    with contextlib.suppress(OSError):
        os.write(2, f"ptx: {sentence}\n".encode("utf-8", "replace"))
