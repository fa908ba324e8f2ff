"""What a check is given and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orchestrator.spec.job import JobSpec
from orchestrator.spec.warning import MeasuredSave


class Finding(NamedTuple):
    path: tuple[str | int, ...]
    """The key it is about; where the text leaves that key out, the nearest one above."""
    message: str
    help: str | None = None
    code: str = "conflict"
    warning: bool = False
    at_key: bool = False
    """Point at the key instead of its value."""


@dataclass(frozen=True)
class Context:
    folder: Path
    """The spec's own folder, absolute."""
    cwd: Path
    save: Callable[[str], MeasuredSave | None] = lambda _: None
    """How long a save of an earlier run of this name took, where that is known. Asked only by who
    needs it: it reads run folders."""


@dataclass(frozen=True)
class Check:
    function: Callable[[JobSpec, Context], Iterable[Finding]]
    reads: tuple[str, ...]
    """Dotted paths; the check is left out where one of them, or anything below, is broken."""
