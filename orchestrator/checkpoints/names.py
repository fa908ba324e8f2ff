"""Which checkpoints a run has. One folder a step and attempt; without a manifest it is none."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MANIFEST = "manifest.json"
_STEP = re.compile(r"step-(\d{8,})\.a(\d{3,})")


class StepFolder(NamedTuple):
    """Ordered as resuming prefers them: by step, then by attempt."""

    step: int
    attempt: int
    path: Path

    @property
    def committed(self) -> bool:
        """Raises OSError where nobody can know: a file server that is away has deleted nothing."""
        try:
            return stat.S_ISREG((self.path / MANIFEST).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def step_folder(root: Path, step: int, attempt: int) -> StepFolder:
    """The folder of the checkpoint after `step` optimizer steps, written by `attempt`."""
    return StepFolder(step, attempt, root / f"step-{step:08d}.a{attempt:03d}")


def step_folders(root: Path) -> list[StepFolder]:
    """All step folders under `root`, committed or not, oldest first; [] where there is none."""
    try:
        names = [entry.name for entry in root.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = [match for name in names if (match := _STEP.fullmatch(name))]
    return sorted(StepFolder(int(m[1]), int(m[2]), root / m[0]) for m in matches)


def committed_folders(root: Path) -> list[StepFolder]:
    """Those with a manifest, oldest first."""
    return [folder for folder in step_folders(root) if folder.committed]


def eligible(
    folders: Sequence[StepFolder], resume_from: Mapping[str, int] | None
) -> list[StepFolder]:
    """Those of `folders` that a start may continue from, in the same order.

    `resume_from` is the plan's: None, or {"step": N, "attempt": K} where a person went back to
    step N with attempt K. What earlier attempts did beyond N is then another history: it stays on
    disk, and nobody continues from it; before step 0 there is nothing to continue from. Raises
    KeyError where one of the two is missing.
    """
    if resume_from is None:
        return list(folders)
    step, attempt = resume_from["step"], resume_from["attempt"]
    return [one for one in folders if one.attempt >= attempt or (step and one.step <= step)]
