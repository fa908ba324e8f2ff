"""Which checkpoint somebody means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.checkpoints.listing import Listed, newest_first
from orchestrator.checkpoints.manifest import DamagedCheckpoint
from orchestrator.checkpoints.verify import DeletedCheckpoint
from orchestrator.errors import NotFound
from orchestrator.runs.layout import RunLayout

T = TypeVar("T")
_TRIES = 5


@dataclass(frozen=True)
class Choice:
    """One checkpoint of a run, to be read: that of a step, else the one that a start would take."""

    root: Path
    step: int | None
    resume_from: Mapping[str, int] | None
    group_shared: bool

    @classmethod
    def of(cls, layout: RunLayout, plan: Mapping[str, Any], step: int | None) -> Choice:
        back = plan.get("resume_from")
        return cls(
            layout.checkpoints,
            step,
            back if isinstance(back, dict) else None,
            bool(plan.get("group_shared")),
        )

    def chosen(self) -> Listed:
        """Raises NotFound, naming the steps that there are, DamagedCheckpoint, and
        UntrustedCheckpoint: what a start refuses must not leave the run under new names, hashes
        and permissions."""
        one = choose(newest_first(self.root, self.resume_from), self.step, self.root)
        one.refuse_untrusted(group_shared=self.group_shared)
        return one

    def read_by(self, act: Callable[[Listed], T]) -> T:
        """What `act` makes of it. Where the run, which goes on, deletes it meanwhile, the newest is
        taken again; of a step that was asked for DeletedCheckpoint is raised."""
        for _ in range(1, _TRIES if self.step is None else 1):
            try:
                return act(self.chosen())
            except DeletedCheckpoint:
                pass
        return act(self.chosen())


def choose(found: Iterable[Listed], step: int | None, root: Path) -> Listed:
    """The whole one of that step, of the newest attempt; without a step the one that a start would
    take. Raises NotFound, naming the steps that there are, and DamagedCheckpoint where that step
    lacks files. `found` is newest first, and asked for no more than it takes."""
    seen = []
    for one in found:
        if one.whole and (one.resumes if step is None else one.folder.step == step):
            return one
        seen.append(one)
    for one in seen:
        if one.folder.step == step and one.manifest is not None and one.problem is not None:
            raise DamagedCheckpoint(
                f"{one.problem}.",
                hint="Take another step; `ptx checkpoints verify` looks at all.",
            )
    whole = [one for one in seen if one.whole]
    if not whole:
        raise NotFound(
            f"There is no whole checkpoint in {root}.",
            hint="Runs save where the spec says so: checkpoint.every_steps, every_minutes, at_end.",
        )
    steps = sorted({one.folder.step for one in whole})
    some = [str(one) for one in steps[-8:]]
    raise NotFound(
        f"There is no whole checkpoint of step {step} in {root}."
        if step is not None
        else f"Of the checkpoints in {root} none is one to continue from.",
        hint=f"There {'is step' if len(steps) == 1 else 'are steps'} "
        f"{'… ' if len(steps) > 8 else ''}{', '.join(some)}.",
    )
