"""Paths of a spec, without looking at the disk."""

from __future__ import annotations

import os.path
from pathlib import Path


def absolute(base: Path, path: str | Path) -> Path:
    """`path` seen from `base`, with `..` taken away by name: a link is not followed."""
    return Path(os.path.normpath(base / path))
