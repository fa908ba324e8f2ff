"""Which checkpoints a run has, and which of them its next start would continue from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.checkpoints.manifest import DamagedCheckpoint, Manifest, read_manifest
from orchestrator.checkpoints.names import MANIFEST, StepFolder, eligible, step_folders
from orchestrator.checkpoints.tensor_file import mismatches


@dataclass(frozen=True)
class Listed:
    folder: StepFolder
    manifest: Manifest | None
    """None where the checkpoint was never finished, or its manifest cannot be read."""
    problem: str | None
    """Why it cannot be loaded, in one sentence. Sizes are looked at, and no hashes."""
    eligible: bool
    """False for what a person left behind by going back to an earlier step."""
    resumes: bool = False
    """The next start continues from this one, if the hashes of its files are right."""

    @property
    def whole(self) -> bool:
        return self.problem is None


def listing(root: Path, resume_from: Mapping[str, int] | None) -> list[Listed]:
    """All checkpoints under `root`, newest first. Reads manifests, and looks at each file."""
    folders = step_folders(root)
    may = set(eligible(folders, resume_from))
    found = [_listed(folder, is_eligible=folder in may) for folder in reversed(folders)]
    for number, one in enumerate(found):
        if one.whole and one.eligible:
            found[number] = Listed(one.folder, one.manifest, None, eligible=True, resumes=True)
            break
    return found


def _listed(folder: StepFolder, *, is_eligible: bool) -> Listed:
    if not folder.committed:
        return Listed(folder, None, f"{folder.path} has no {MANIFEST}", is_eligible)
    try:
        manifest = read_manifest(folder.path)
        problem = _missing_from(folder, manifest)
    except DamagedCheckpoint as error:
        manifest, problem = None, error.message
    if problem is not None and not folder.committed:  # its run has deleted it meanwhile
        return Listed(folder, None, f"{folder.path} has no {MANIFEST}", is_eligible)
    return Listed(folder, manifest, problem, is_eligible)


def _missing_from(folder: StepFolder, manifest: Manifest) -> str | None:
    problems = mismatches(folder.path, manifest.files, hashes=False)
    if not problems:
        return None
    more = f" ({len(problems) - 1} more files are damaged)" if len(problems) > 1 else ""
    return f"{problems[0].sentence}{more}"
