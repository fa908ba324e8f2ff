"""The run whose checkpoints a command is about, and the options that say which one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.checkpoints.choose import Choice
from orchestrator.checkpoints.commit import attempt_numbers
from orchestrator.checkpoints.listing import Listed, listing
from orchestrator.cli.options import only_root
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import read_plan
from orchestrator.runs.registry import name_of, resolve

Step = Annotated[
    int | None,
    typer.Option("--step", metavar="N", min=0, help="Default: the one a start would take."),
]
Output = Annotated[
    str, typer.Option("--output", "-o", metavar="DIR", help="A folder that is not there yet.")
]


@dataclass(frozen=True)
class CheckpointRun:
    layout: RunLayout
    plan: Mapping[str, Any]

    @classmethod
    def of(cls, text: str, runs: str | None) -> CheckpointRun:
        """Raises NotFound, Conflict."""
        layout = resolve(text, root=only_root(runs))
        return cls(layout, read_plan(layout))

    @property
    def root(self) -> Path:
        return self.layout.checkpoints

    @property
    def name(self) -> str:
        """What to type for it."""
        return name_of(self.layout)

    @property
    def group_shared(self) -> bool:
        return bool(self.plan.get("group_shared"))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The plan's `checkpoint`."""
        found = self.plan.get("checkpoint")
        return found if isinstance(found, dict) else {}

    @property
    def resume_from(self) -> Mapping[str, int] | None:
        found = self.plan.get("resume_from")
        return found if isinstance(found, dict) else None

    @property
    def begins_anew(self) -> bool:
        """Whether no start continues from what is there."""
        return self.settings.get("resume") == "never"

    @property
    def newest_attempt(self) -> int | None:
        """That has begun."""
        return max(attempt_numbers(self.layout.root / "attempts"), default=None)

    def listing(self) -> list[Listed]:
        """Newest first."""
        return listing(self.root, self.resume_from)

    def choice(self, step: int | None) -> Choice:
        """Which one is meant by --step, or without."""
        return Choice.of(self.layout, self.plan, step)


def new_folder(text: str) -> Path:
    """--output as a path. Raises UserError."""
    if "\0" in text or not text:
        raise UserError(f"--output {text!r} is no path.", hint="Name a folder.")
    return Path(text).absolute()
