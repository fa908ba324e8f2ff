"""The bundles of a run: `bundle` is the newest submission's, `bundle.000` the first one's that
another has taken the place of, and so on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from orchestrator.render.bundle import Bundle
from orchestrator.runs.create import modes_of, write_bundle
from orchestrator.runs.files import make_folder, sync_folder
from orchestrator.runs.layout import RunLayout

_OLD = re.compile(r"bundle\.(\d{3,})")


def current_bundle(layout: RunLayout) -> Path:
    """The newest bundle's folder. Between two renames there is none called `bundle`, and a client
    that is killed there leaves it so."""
    if layout.bundle.is_dir():
        return layout.bundle
    old = [entry for entry in layout.root.iterdir() if _OLD.fullmatch(entry.name)]
    return max(old, key=lambda entry: int(entry.name.partition(".")[2]), default=layout.bundle)


def put_bundle(layout: RunLayout, bundle: Bundle, number: int) -> None:
    """Make `bundle` the run's newest; the one that is there becomes `bundle.NNN`, of `number`.

    What runs from the old one keeps the files that it has open, and finds the rest no more under
    their names: the run has ended. Raises OSError.
    """
    modes = modes_of(layout)
    new = layout.root / ".bundle.new"
    shutil.rmtree(new, ignore_errors=True)  # of a client that was killed
    make_folder(new, modes.folder)
    try:
        write_bundle(new, bundle, modes)
        if layout.bundle.is_dir():
            layout.bundle.rename(layout.root / f"bundle.{number:03d}")
        new.rename(layout.bundle)
        sync_folder(layout.root)
    finally:
        shutil.rmtree(new, ignore_errors=True)
