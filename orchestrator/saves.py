"""How long the saves of earlier runs took, as their manifests say."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

from orchestrator.checkpoints.manifest import DamagedCheckpoint, read_manifest
from orchestrator.checkpoints.names import committed_folders
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import read_record
from orchestrator.spec.warning import MeasuredSave

_RUNS = 8
"""Of the same name, the newest are asked; the first that has saved anything answers."""
_MANIFESTS = 4


def save_of_run(layout: RunLayout) -> MeasuredSave | None:
    """The slowest of its newest few; None where nothing tells."""
    found = []
    for folder in committed_folders(layout.checkpoints)[: -_MANIFESTS - 1 : -1]:
        took = None
        with suppress(DamagedCheckpoint):
            took = read_manifest(folder.path).state.get("save_seconds")
        if isinstance(took, int | float) and math.isfinite(took) and took >= 0:
            where = f"step {folder.step} of {layout.run_id}"
            found.append(MeasuredSave(float(took), where))
    return max(found, default=None)


def save_of_name(root: Path, name: str) -> MeasuredSave | None:
    """Of the newest run of that name in a folder of runs that has saved."""
    try:
        folders = [path for path in root.iterdir() if path.name.startswith(f"{name}-")]
        newest = sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return None
    asked = 0
    for folder in newest:
        layout = RunLayout(folder)
        record = read_record(layout)
        if record is None or record.name != name:
            continue
        if (found := save_of_run(layout)) is not None:
            return found
        asked += 1
        if asked == _RUNS:
            break
    return None
