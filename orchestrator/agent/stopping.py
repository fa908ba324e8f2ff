"""What the agent and this node's ranks say to each other without a signal: two files on the
node's own disk, one to ask the ranks to stop, one whose time tells when they last made a step."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

STOP, STEP = "stop.json", "step"


class Stopping:
    """`hang_after`: seconds without a step, after the first one, that make a hang; None: never."""

    def __init__(self, hang_after: float | None) -> None:
        # Not $TMPDIR: some sites set it to a folder that all nodes share.
        local = os.environ.get("SLURM_TMPDIR") or "/tmp"  # noqa: S108 - a folder of its own in it
        usable = os.path.isdir(local) and os.access(local, os.W_OK)  # noqa: PTH112
        self.folder = Path(tempfile.mkdtemp(prefix="ptx-", dir=local if usable else None))
        self.asked: str | None = None
        """The reason of the newest request."""
        self._hang_after = hang_after
        self._seen: int | None = None
        self._since = 0.0

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PTX_STOP_FILE": str(self.folder / STOP),
            "PTX_STEP_FILE": str(self.folder / STEP),
        }

    def ask(self, reason: str, by: float | None) -> None:
        """Ask the ranks to save and end; `by` (epoch seconds): when it is too late, if known.
        Raises OSError where the node's disk is full."""
        self.asked = reason
        scratch = self.folder / f".{STOP}"
        scratch.write_text(json.dumps({"v": 1, "reason": reason, "by": by}) + "\n")
        scratch.replace(self.folder / STOP)

    @property
    def stepped(self) -> bool:
        """Whether a rank here has reported a step."""
        return self._last() is not None

    def hangs(self) -> bool:
        """Whether the ranks have stood still for too long. To be asked from time to time. Once
        they are asked to stop they may save for as long as they need."""
        last = self._last()
        now = time.monotonic()
        if last != self._seen:
            self._seen, self._since = last, now
        waits = self._hang_after is not None and last is not None and self.asked is None
        return waits and now - self._since > float(self._hang_after or 0)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _last(self) -> int | None:
        try:
            return (self.folder / STEP).stat().st_mtime_ns
        except OSError:
            return None
