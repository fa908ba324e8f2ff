"""Which checkpoints a run has, and which of them its next start would continue from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.checkpoints.manifest import DamagedCheckpoint, Manifest, read_manifest
from orchestrator.checkpoints.names import MANIFEST, StepFolder, eligible, step_folders
from orchestrator.checkpoints.tensor_file import Mismatch, is_unreadable, wrong_sizes
from orchestrator.checkpoints.trust import around, refuse_untrusted, why_untrusted


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
    away: bool = False
    """It cannot be read here and now, and may be whole all the same."""

    @property
    def whole(self) -> bool:
        return self.problem is None

    def why_untrusted(self, *, group_shared: bool) -> str | None:
        """Why a start refuses it though it may be whole, in one sentence."""
        return why_untrusted(self._paths, group_shared=group_shared)

    def refuse_untrusted(self, *, group_shared: bool) -> None:
        """Raise UntrustedCheckpoint where a start would."""
        refuse_untrusted(self._paths, group_shared=group_shared)

    @property
    def _paths(self) -> list[Path]:
        entries = self.manifest.files if self.manifest is not None else ()
        return [*around(self.folder.path), *(self.folder.path / entry.name for entry in entries)]


def listing(root: Path, resume_from: Mapping[str, int] | None) -> list[Listed]:
    """All checkpoints under `root`, newest first. Reads manifests, and looks at each file."""
    return list(newest_first(root, resume_from))


def newest_first(root: Path, resume_from: Mapping[str, int] | None) -> Iterator[Listed]:
    """The same one by one: who has found what he wants leaves the others unread."""
    folders = step_folders(root)
    may = set(eligible(folders, resume_from))
    resumes = True
    for folder in reversed(folders):
        one = _listed(folder, is_eligible=folder in may)
        if resumes and one.whole and one.eligible:
            one, resumes = replace(one, resumes=True), False
        yield one


def _listed(folder: StepFolder, *, is_eligible: bool) -> Listed:
    if not folder.committed:
        return Listed(folder, None, f"{folder.path} has no {MANIFEST}", is_eligible)
    try:
        manifest = read_manifest(folder.path)
        problems = wrong_sizes(folder.path, manifest.files)
        problem = _told(problems)
        away = bool(problems) and all(one.unreadable for one in problems)
    except DamagedCheckpoint as error:
        manifest, problem, away = None, error.message, is_unreadable(error)
    if problem is not None and not folder.committed:  # its run has deleted it meanwhile
        return Listed(folder, None, f"{folder.path} has no {MANIFEST}", is_eligible)
    return Listed(folder, manifest, problem, is_eligible, away=away)


def _told(problems: Sequence[Mismatch]) -> str | None:
    if not problems:
        return None
    more = f" ({len(problems) - 1} more files are damaged)" if len(problems) > 1 else ""
    return f"{problems[0].sentence}{more}"
