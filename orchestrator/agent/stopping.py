"""What the agent and this node's ranks say to each other without a signal: two files on the
node's own disk, one to ask the ranks to stop, one whose time tells when they last made a step, and
which, where they say it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

STOP, STEP = "stop.json", "step"
_LONGEST = 64
"""Bytes of two numbers."""


class Stopping:
    """The folder of both, for as long as the node runs."""

    def __init__(self) -> None:
        # Not $TMPDIR: some sites set it to a folder that all nodes share.
        local = os.environ.get("SLURM_TMPDIR") or "/tmp"  # noqa: S108 - a folder of its own in it
        usable = os.path.isdir(local) and os.access(local, os.W_OK)  # noqa: PTH112
        self.folder = Path(tempfile.mkdtemp(prefix="ptx-", dir=local if usable else None))
        self.asked: str | None = None
        """The reason of the newest request."""

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PTX_STOP_FILE": str(self.folder / STOP),
            "PTX_STEP_FILE": str(self.step_file),
        }

    def ask(self, reason: str, by: float | None) -> None:
        """Ask the ranks to save and end; `by` (epoch seconds): when it is too late, if known.
        Raises OSError where the node's disk is full."""
        self.asked = reason
        scratch = self.folder / f".{STOP}"
        scratch.write_text(json.dumps({"v": 1, "reason": reason, "by": by}) + "\n")
        scratch.replace(self.folder / STOP)

    @property
    def step_file(self) -> Path:
        return self.folder / STEP

    @property
    def progress(self) -> dict[str, Any]:
        """Whether a rank here has reported a step; how many were done when training began, and
        when it last did so: None where it only touched the file, as a person's script may."""
        start, step = self._steps()
        return {"stepped": self.step_file.exists(), "start_step": start, "step": step}

    def _steps(self) -> tuple[int | None, int | None]:
        try:
            with self.step_file.open("rb") as file:
                start, step = map(int, file.read(_LONGEST).split())
        except (OSError, ValueError):
            return None, None
        return start, step

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
