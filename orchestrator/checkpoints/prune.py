"""Deleting old checkpoints by hand, also beside a run that goes on and saves."""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class Keep:
    """What stays of each history."""

    last: int = 1
    every: int | None = None
    best_metric: str | None = None


def to_prune(
    root: Path,
    resume_from: Mapping[str, int] | None,
    keep: Keep,
    *,
    attempt: int | None = None,
    apart: bool = False,
    reads: Callable[[StepFolder], None] = lambda _: None,
) -> list[StepFolder]:
    """What may go, oldest first: never the newest that a start could continue from, nor anything
    newer than that, nor what `attempt`, the newest that has begun, may be writing.

    The newest one that counts is read before anything goes (`reads` is told), since a flipped byte
    shows in its hash alone; of the others it is enough that every file has its size. What cannot
    be read at the moment may be whole, and stays. What somebody left behind by going back goes as
    well, but for multiples of `keep.every`. With `apart`, as under `checkpoint.resume: never`, each
    attempt is a history of its own.
    """
    found = [one for one in listing(root, resume_from) if not _being_written(one, attempt)]
    attempts = {one.folder.attempt for one in found} if apart else set()
    histories = [[one for one in found if one.folder.attempt == number] for number in attempts]
    return sorted(
        folder for history in histories or [found] for folder in _of_history(history, keep, reads)
    )


def _being_written(one: Listed, attempt: int | None) -> bool:
    return one.folder.attempt == attempt and not one.folder.committed


def _of_history(
    found: Sequence[Listed], keep: Keep, reads: Callable[[StepFolder], None]
) -> list[StepFolder]:
    sound = [one for one in reversed(found) if one.whole and one.eligible]
    while sound:
        goes = _superfluous(found, sound, keep)
        if not goes or _is_right(sound[-1], reads):
            return goes
        sound.pop()
    return []


def _superfluous(found: Sequence[Listed], sound: Sequence[Listed], keep: Keep) -> list[StepFolder]:
    gone = superfluous(
        [one.folder for one in sound],
        keep_last=keep.last,
        keep_every=keep.every,
        best=_best(sound, keep.best_metric),
    )
    kept = {one.folder for one in sound} - set(gone)
    newest = sound[-1].folder
    return [one.folder for one in reversed(found) if _goes(one, kept, newest, keep.every)]


def _goes(one: Listed, kept: set[StepFolder], newest: StepFolder, keep_every: int | None) -> bool:
    if one.folder in kept or one.away:
        return False
    if one.eligible:
        return one.folder < newest
    return not (keep_every is not None and one.whole and one.folder.step % keep_every == 0)


def _is_right(one: Listed, reads: Callable[[StepFolder], None]) -> bool:
    """Whether all its files are what was written."""
    reads(one.folder)
    return one.manifest is not None and not mismatches(one.folder.path, one.manifest.files)


def _best(sound: Sequence[Listed], metric: str | None) -> int | None:
    """Step of the checkpoint that is the best by `metric`."""
    sign = -1 if metric in _MORE_IS_BETTER else 1
    values = [
        (one.manifest.metrics.get(metric), one.folder.step)
        for one in sound
        if one.manifest is not None and metric is not None
    ]
    measured = [
        (sign * value, step)
        for value, step in values
        if isinstance(value, int | float) and math.isfinite(value)
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
