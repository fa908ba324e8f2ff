"""Who could have written a checkpoint. Hashes prove that it is whole, not whose it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path


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
