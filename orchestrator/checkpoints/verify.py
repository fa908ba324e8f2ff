"""Is every byte of a checkpoint what was written?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.checkpoints.listing import Listed
from orchestrator.checkpoints.manifest import DamagedCheckpoint, Manifest
from orchestrator.checkpoints.names import MANIFEST, StepFolder
from orchestrator.checkpoints.tensor_file import mismatches


@dataclass(frozen=True)
class Verdict:
    folder: StepFolder
    files: int
    bytes: int
    problems: Sequence[str]
    """One sentence for each damaged file; [] for a whole checkpoint."""
    warnings: Sequence[str] = ()
    """What hashes cannot prove, and a start refuses: who else could have written it, hashes and
    all."""

    @property
    def good(self) -> bool:
        """Whether a start would take it."""
        return not self.problems and not self.warnings


def verify(one: Listed, *, group_shared: bool) -> Verdict | None:
    """Read all files of a checkpoint and compare sizes and hashes with its manifest. None for one
    that its run has deleted meanwhile: reading takes minutes, and the run goes on."""
    manifest = one.manifest
    if manifest is None:
        return Verdict(one.folder, 0, 0, [one.problem or ""])
    problems = [found.sentence for found in mismatches(one.folder.path, manifest.files)]
    if problems and not one.folder.committed:  # the mark goes first
        return None
    untrusted = one.why_untrusted(group_shared=group_shared)
    warnings = [] if untrusted is None else [untrusted]
    return Verdict(one.folder, len(manifest.files), manifest.bytes, problems, warnings)


class DeletedCheckpoint(DamagedCheckpoint):
    """Its run, which goes on, has deleted it while it was read."""


@contextmanager
def while_read(folder: Path) -> Iterator[None]:
    """What is found damaged in the block, since it is being deleted, is a DeletedCheckpoint."""
    try:
        yield
    except DamagedCheckpoint as error:
        if (folder / MANIFEST).is_file():  # the mark goes first
            raise
        raise DeletedCheckpoint(
            f"{folder} was deleted while it was read.",
            hint="The run goes on and keeps few; take its newest, without --step.",
        ) from error


def refuse_damage(folder: Path, manifest: Manifest) -> None:
    """Raise DamagedCheckpoint, naming the first file that is not what was written."""
    problems = mismatches(folder, manifest.files)
    with while_read(folder):
        if not problems:
            return
        more = f" ({len(problems) - 1} more files are damaged)" if len(problems) > 1 else ""
        raise DamagedCheckpoint(
            f"{problems[0].sentence}.{more}",
            hint="Take another checkpoint with --step; `ptx checkpoints verify` looks at all.",
        )
