"""What a node whose ranks stand still leaves to the other nodes of the attempt: hang.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

NAME = "hang.json"


class Notice(NamedTuple):
    node: int
    given: float
    """This and `due` by that node's clock, in epoch seconds."""
    due: float
    """When the stacks of all nodes are."""


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
