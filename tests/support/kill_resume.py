"""ptx that kills itself with SIGKILL at one point of a resumption.

Usage: kill_resume.py POINT ARGS..., as `ptx ARGS...`. A point that is never reached ends as ptx
would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from support.kill_at import after, before

from orchestrator import resumption
from orchestrator.runs.events import ClientEvents
from orchestrator.schedulers.local import Local


def _to(name: str) -> Callable[..., bool]:
    return lambda _path, target: Path(target).name == name


POINTS: dict[str, Callable[[], None]] = {
    "before the intent": lambda: before(os, "link"),
    "after the intent": lambda: after(os, "link"),
    "before the old bundle moves": lambda: before(Path, "rename", _to("bundle.000")),
    "while there is no bundle": lambda: after(Path, "rename", _to("bundle.000")),
    "after the new bundle": lambda: after(resumption, "put_bundle"),
    "before the supervisor": lambda: before(Local, "submit"),
    "after the supervisor": lambda: after(Local, "submit"),
    "after the submission": lambda: after(
        ClientEvents, "append", lambda _self, event, **_fields: event == "submitted"
    ),
}
NOT_STARTED = list(POINTS)[: list(POINTS).index("after the supervisor")]

if __name__ == "__main__":
    point, *args = sys.argv[1:]
    POINTS[point]()
    sys.argv = ["ptx", *args]
    from orchestrator.cli.main import main

    sys.exit(main())
