"""When to give up waiting for a better held-out loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.spec.training import Evaluation


class EarlyStopping:
    """Counts evaluations in a row without a better loss (Prechelt 1998, "Early stopping - but
    when?"). A function of the losses alone, so ranks that see the same ones decide the same."""

    def __init__(self, settings: Evaluation) -> None:
        self._patience, self._min_delta = settings.patience, settings.min_delta
        self._reference = math.inf
        self._in_vain = 0
        self.best: float | None = None
        """The lowest loss so far; None before the first that is finite."""

    @property
    def over(self) -> bool:
        """Whether patience is at its end."""
        return self._patience is not None and self._in_vain >= self._patience

    def gives_up(self, loss: float) -> bool:
        """Take in an evaluation's loss: whether `patience` of them in a row were not better, which
        is lower by more than `min_delta` than the last that was. A NaN is never better."""
        if loss < (math.inf if self.best is None else self.best):
            self.best = loss
        if loss < self._reference - self._min_delta:
            self._reference, self._in_vain = loss, 0
        else:
            self._in_vain += 1
        return self.over

    def state(self) -> dict[str, Any]:
        """For a checkpoint. JSON has no infinity."""
        reference = None if math.isinf(self._reference) else self._reference
        return {"reference": reference, "in_vain": self._in_vain, "best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        reference = state["reference"]
        self._reference = math.inf if reference is None else reference
        self._in_vain, self.best = state["in_vain"], state["best"]
