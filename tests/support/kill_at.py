"""ptx that kills itself with SIGKILL at one point of a submission.

Usage: kill_at.py POINT ARGS..., as `ptx ARGS...`. A point that is never reached ends as ptx would.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from orchestrator import submission
from orchestrator.runs import create
from orchestrator.runs.events import ClientEvents
from orchestrator.schedulers.slurm import Slurm

Hook = Callable[..., bool]
_ALWAYS: Hook = lambda *_a, **_k: True  # noqa: E731


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, when: Hook = _ALWAYS) -> None:
    _wrap(owner, name, when, first=True)


def after(owner: Any, name: str, when: Hook = _ALWAYS) -> None:
    _wrap(owner, name, when, first=False)


def _wrap(owner: Any, name: str, when: Hook, *, first: bool) -> None:
    real = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        here = when(*args, **kwargs)
        if first and here:
            die()
        answer = real(*args, **kwargs)
        if here:
            die()
        return answer

    setattr(owner, name, wrapper)


def _event(kind: str) -> Hook:
    return lambda _self, event, **_fields: event == kind


def _sbatch(_self: Any, argv: Any, *_args: Any, **_kwargs: Any) -> bool:
    return bool(argv[0] == "sbatch")


POINTS: dict[str, Callable[[], None]] = {
    "before the run folder": lambda: before(submission, "create_run"),
    "in the run folder, before its record": lambda: before(
        create, "write_new", lambda path, *_: path.name == "run.json"
    ),
    "after the run folder": lambda: after(submission, "create_run"),
    "after the intent": lambda: after(ClientEvents, "append", _event("intent")),
    "after the registry": lambda: after(submission, "register"),
    "before sbatch": lambda: before(subprocess.Popen, "__init__", _sbatch),
    "while sbatch runs": lambda: after(subprocess.Popen, "__init__", _sbatch),
    "after sbatch": lambda: after(Slurm, "_submit"),
    "after the submission": lambda: after(ClientEvents, "append", _event("submitted")),
}

if __name__ == "__main__":
    point, *args = sys.argv[1:]
    POINTS[point]()
    sys.argv = ["ptx", *args]
    from orchestrator.cli.main import main

    sys.exit(main())
