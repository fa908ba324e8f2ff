"""The micro batch that training found, written to the run."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.runs.files import replace, sync_folder
from orchestrator.spec.training import Training
from orchestrator.training.memory.known import Known


def write_record(folder: Path, known: Known, training: Training, *, group_shared: bool) -> None:
    """`folder`/micro_batch.json, by rename. Raises OSError where the disk is full or gone."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "v": 1,
        "micro_batch": training.micro_batch,
        "accumulation": training.accumulation,
        "searched": known.searched,
        "fits": {str(size): peak for size, peak in sorted(known.fits.items())},
        "fails": sorted(known.fails),
        "restarts": known.round,
    }
    data = (json.dumps(record) + "\n").encode()
    replace(folder / "micro_batch.json", data, 0o660 if group_shared else 0o600)
    sync_folder(folder)
