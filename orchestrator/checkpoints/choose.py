"""Which checkpoint somebody means."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestrator.checkpoints.listing import Listed
from orchestrator.checkpoints.manifest import DamagedCheckpoint
from orchestrator.errors import NotFound


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
