"""Deleting old checkpoints by hand, also beside a run that goes on and saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.checkpoints.commit import remove, superfluous
from orchestrator.checkpoints.listing import Listed, listing
from orchestrator.checkpoints.names import StepFolder
from orchestrator.checkpoints.tensor_file import mismatches

_MORE_IS_BETTER = frozenset({"eval_accuracy", "train_accuracy"})


@dataclass(frozen=True)
class Pruned:
    folder: StepFolder
    bytes: int


def to_prune(
    root: Path,
    resume_from: Mapping[str, int] | None,
    *,
    keep_last: int,
    keep_every: int | None = None,
    best_metric: str | None = None,
) -> list[StepFolder]:
    """What may go, oldest first: never the newest that a start could continue from, nor anything
    newer than that, which a save under way may not have finished yet.

    A checkpoint that lacks a file, or has one of another size, does not count as one that is kept.
    What somebody left behind by going back goes as well, but for multiples of `keep_every`.
    """
    found = listing(root, resume_from)
    sound = [one for one in reversed(found) if one.whole and one.eligible and not _torn(one)]
    if not sound:
        return []
    gone = superfluous(
        [one.folder for one in sound],
        keep_last=keep_last,
        keep_every=keep_every,
        best=_best(sound, best_metric),
    )
    newest = sound[-1].folder
    kept = {one.folder for one in sound} - set(gone)
    return [one.folder for one in reversed(found) if _goes(one, kept, newest, keep_every)]


def _goes(one: Listed, kept: set[StepFolder], newest: StepFolder, keep_every: int | None) -> bool:
    if one.folder in kept:
        return False
    if one.eligible:
        return one.folder < newest
    return not (keep_every is not None and one.whole and one.folder.step % keep_every == 0)


def _torn(one: Listed) -> bool:
    manifest = one.manifest
    return manifest is None or bool(mismatches(one.folder.path, manifest.files, hashes=False))


def _best(sound: Sequence[Listed], metric: str | None) -> int | None:
    """Step of the checkpoint that is the best by `metric`."""
    sign = -1 if metric in _MORE_IS_BETTER else 1
    measured = [
        (sign * one.manifest.metrics[metric], one.folder.step)
        for one in sound
        if one.manifest is not None and metric is not None and metric in one.manifest.metrics
    ]
    return min(measured)[1] if measured else None


def prune_all(folders: Sequence[StepFolder], tell: Callable[[Pruned], None]) -> list[Pruned]:
    """Delete them, and `tell` of each as it goes. Raises OSError."""
    gone = []
    for folder in folders:
        pruned = Pruned(folder, size_of(folder))
        remove(folder)
        gone.append(pruned)
        tell(pruned)
    return gone


def size_of(folder: StepFolder) -> int:
    """Bytes of its files; 0 for one that the run itself has deleted meanwhile."""
    try:
        return sum(path.stat().st_size for path in folder.path.iterdir())
    except FileNotFoundError:
        return 0
