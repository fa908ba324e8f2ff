"""What a training has come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.training.errors import TrainingFailed


@dataclass(frozen=True)
class Outcome:
    steps_done: int
    ended: Literal["done", "stopped", "early"]
    """After the last step; by SIGTERM or the node's agent; or since the held-out loss got no
    better."""
    samples_per_s: float
    """Over all ranks and all steps since the start or resume, evaluations left out."""
    tokens_per_s: float | None
    """The same in tokens, where samples are made of them."""
    eval_loss: float | None
    """The last held-out loss; None where nothing was evaluated."""
    best_loss: float | None
    """The lowest."""
    story: str = ""
    """Where training was stopped: by whom, after which step, and where it can go on from."""
    unsaved: str | None = None
    """Why there is no checkpoint after the last step, where there should be one."""

    @property
    def stopped(self) -> bool:
        """Training was ended before its last step."""
        return self.ended == "stopped"

    def check_saved(self) -> None:
        """Call when the result is safe. Raises TrainingFailed where its checkpoint is not."""
        if self.unsaved is not None:
            raise TrainingFailed(
                f"the checkpoint after the last step was not written: {self.unsaved}",
                hint="what was trained is done; make room before it is resumed",
            )
