"""Making a checkpoint count, and making old ones go."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.checkpoints.manifest import Manifest
from orchestrator.checkpoints.names import MANIFEST, StepFolder, eligible, step_folders
from orchestrator.errors import UserError
from orchestrator.runs.files import make_folder, put_mark, sync_folder


class AttemptOver(UserError):
    """A newer attempt of the run has begun: what this one writes must not count."""

    exit_code = 1
    code = "attempt-over"


def begin(folder: StepFolder, *, mode: int = 0o700) -> None:
    """Make an empty step folder. What an earlier try of the same attempt left, uncommitted, goes.

    Raises FileExistsError where the step is committed already.
    """
    root = folder.path.parent
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        make_folder(root, mode)
        sync_folder(root.parent)
    if folder.committed:
        raise FileExistsError(folder.path)
    if folder.path.exists():
        shutil.rmtree(folder.path)
    make_folder(folder.path, mode)
    sync_folder(root)


def commit(folder: Path, manifest: Manifest, attempts: Path, *, mode: int = 0o600) -> None:
    """Put the manifest in its place: from now on the checkpoint exists.

    All files have been synced by who wrote them; their names are synced here, before the mark.
    `attempts` is the run's folder of attempts: ranks that outlive their attempt (their node was
    given up, and they have not noticed) find a newer one there, and commit nothing.
    Raises AttemptOver, OSError.
    """
    newer = [n for n in attempt_numbers(attempts) if n > manifest.attempt]
    if newer:
        raise AttemptOver(
            f"attempt {manifest.attempt} is over: attempt {max(newer)} of this run has begun",
            hint="this process belongs to a node that was given up; nothing of it is kept",
        )
    put_mark(folder / MANIFEST, manifest.to_json(), mode)


def attempt_numbers(attempts: Path) -> Iterable[int]:
    """Numbers of the attempts that have a folder."""
    try:
        return [int(entry.name) for entry in attempts.iterdir() if entry.name.isdecimal()]
    except FileNotFoundError:
        return []


def superfluous(
    folders: Sequence[StepFolder], *, keep_last: int, keep_every: int | None, best: int | None
) -> list[StepFolder]:
    """Which step folders may go, oldest first, of `folders` as `step_folders` gives them.

    The newest `keep_last` committed ones stay, those whose step is a multiple of `keep_every`,
    and step `best`. What has no manifest goes where something newer is committed: nobody writes
    it any more.
    """
    committed = [folder for folder in folders if folder.committed]
    if not committed:
        return []
    kept = set(committed[-max(1, keep_last) :])
    kept |= {f for f in committed if keep_every is not None and f.step % keep_every == 0}
    kept |= {f for f in committed if f.step == best}
    newest = committed[-1]
    return [f for f in folders if f not in kept and (f.committed or f < newest)]


def remove(folder: StepFolder) -> None:
    """Delete a checkpoint, its mark first: half deleted it must not look complete.

    A run and a person may prune at the same time: what is gone already is no error.
    """
    with contextlib.suppress(FileNotFoundError):
        (folder.path / MANIFEST).unlink(missing_ok=True)
        sync_folder(folder.path)
    shutil.rmtree(folder.path, onerror=_unless_gone)


def _unless_gone(_function: object, _path: object, raised: tuple[Any, BaseException, Any]) -> None:
    if not isinstance(raised[1], FileNotFoundError):
        raise raised[1]


def prune(
    root: Path,
    *,
    keep_last: int,
    keep_every: int | None = None,
    best: int | None = None,
    resume_from: Mapping[str, int] | None = None,
    newest: StepFolder | None = None,
    damaged: Collection[StepFolder] = (),
) -> list[StepFolder]:
    """Delete what is superfluous under `root`, and say what that was. Raises OSError, after all
    that can be deleted is: one on a damaged part of a disk would else keep all others for ever.

    What `resume_from` has made another history stays, and does not count. Nor does what lies beyond
    `newest`, the one just committed: a run that is not there yet could not load it. Nor what is
    `damaged` and was passed over; it goes once training is beyond it, or a later start, which
    does not come by it, would count it among the whole ones.
    """
    folders = [
        folder
        for folder in eligible(step_folders(root), resume_from)
        if newest is None or folder <= newest
    ]
    whole = [folder for folder in folders if folder not in damaged]
    gone = [folder for folder in folders if folder in damaged]
    gone += superfluous(whole, keep_last=keep_last, keep_every=keep_every, best=best)
    failed: OSError | None = None
    for folder in gone:
        try:
            remove(folder)
        except OSError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return gone
