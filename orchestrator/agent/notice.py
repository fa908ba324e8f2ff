"""What a node whose ranks stand still leaves to the other nodes of the attempt: hang.json."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

NAME = "hang.json"
SETTLE = 6.0
"""Seconds between a notice and the stacks of all: ranks that see others go leave none."""


class Notice(NamedTuple):
    node: int
    given: float
    """This and `due` by that node's clock, in epoch seconds."""
    due: float
    """When the stacks of all nodes are."""


def give_notice(folder: Path, node: int) -> bool:
    """Tell the agents of an attempt that the ranks of this node stand still; False where somebody
    has told them so before."""
    now = time.time()
    line = json.dumps({"v": 1, "node": node, "t": now, "at": now + SETTLE}) + "\n"
    scratch = folder / f".hang-{node:04d}"
    given = True
    with contextlib.suppress(OSError):
        scratch.write_text(line)
        try:
            os.link(scratch, folder / NAME)
        except FileExistsError:
            given = False
        scratch.unlink()
    return given


def read_notice(folder: Path) -> Notice | None:
    """That of an attempt's folder; None where nobody gave one, or it is damaged."""
    try:
        # An NFS client that has looked for a name in vain says so again from memory, for up to a
        # minute, until somebody opens the folder.
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        told = json.loads((folder / NAME).read_bytes())
        return Notice(int(told["node"]), float(told["t"]), float(told["at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
