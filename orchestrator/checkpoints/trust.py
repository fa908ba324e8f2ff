"""Who could have written a checkpoint. Hashes prove that it is whole, not whose it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from orchestrator.checkpoints.names import MANIFEST
from orchestrator.errors import UserError

WAY_OUT = "if nobody has: chmod -R go-w the run's checkpoints, and chown them to you"


class UntrustedCheckpoint(UserError):
    """Somebody else could have written the checkpoint."""

    exit_code = 1
    code = "untrusted-checkpoint"


def refuse_untrusted(paths: Iterable[Path], *, group_shared: bool) -> None:
    """Raise UntrustedCheckpoint, naming the first of `paths` that somebody else could write."""
    problem = why_untrusted(paths, group_shared=group_shared)
    if problem is not None:
        raise UntrustedCheckpoint(problem, hint=WAY_OUT)


def why_untrusted(paths: Iterable[Path], *, group_shared: bool) -> str | None:
    """The same as a sentence; None where nobody else could."""
    for path in paths:
        for problem in others_who_may_write(path, group_shared=group_shared):
            return f"{problem}, so what it holds is not loaded"
    return None


def around(folder: Path) -> list[Path]:
    """What is to be trusted beside the files of the checkpoint in `folder`: whoever can write the
    folder of all of them puts another there, and the manifest says which hashes are right."""
    return [folder.parent, folder, folder / MANIFEST]


def others_who_may_write(folder: Path, *, group_shared: bool) -> list[str]:
    """One sentence for each way in which somebody else than this person could write `folder`.

    With `group_shared` the run's group is trusted, and so is whoever of it saved. Root is.
    """
    try:
        about = folder.stat()
    except OSError:
        return []  # whoever reads it will say so
    found = []
    if about.st_mode & stat.S_IWOTH:
        found.append(f"{folder} can be written by everybody on this machine")
    if about.st_mode & stat.S_IWGRP and not group_shared:
        found.append(f"{folder} can be written by its group, which the spec does not share it with")
    if about.st_uid not in (os.geteuid(), 0) and not group_shared:
        found.append(f"{folder} belongs to another user, number {about.st_uid}")
    return found
