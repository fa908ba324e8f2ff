"""When to save. Pure: no disk, no exchange, and the clock is handed in."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from orchestrator.spec.policies import Checkpoint

_SIGNS = {"loss": -1.0, "eval_loss": -1.0, "eval_accuracy": 1.0, "train_accuracy": 1.0}
"""Metrics that a checkpoint can be the best by, and whether more (1) or less (-1) is better."""


class Policy:
    """The spec's `checkpoint` section. All but the clock is the same on all ranks."""

    def __init__(self, settings: Checkpoint, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._since: float | None = clock()

    @property
    def ever(self) -> bool:
        """Whether anything is ever saved."""
        settings = self._settings
        return self.on_stop or settings.at_end or settings.best is not None

    @property
    def on_stop(self) -> bool:
        """Whether to save when training is stopped before its end."""
        settings = self._settings
        periodic = settings.every_steps is not None or settings.every_minutes is not None
        return settings.on_signal or periodic

    @property
    def at_end(self) -> bool:
        """Whether to save after the last step."""
        return self._settings.at_end

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps whatever came of them."""
        every = self._settings.every_steps
        return every is not None and step % every == 0

    def time_is_up(self) -> bool:
        """Whether it is time by this rank's clock: True once, until `began`."""
        minutes = self._settings.every_minutes
        if minutes is None or self._since is None or self._clock() - self._since < 60 * minutes:
            return False
        self._since = None
        return True

    def began(self) -> None:
        """A save has begun, for whatever reason: the minutes count from here."""
        self._since = self._clock()

    def score(self, metrics: Mapping[str, float]) -> float | None:
        """By how much a checkpoint with these metrics is to be preferred; None where the wanted
        metric was not measured, or is no number."""
        name = self._settings.best
        if name is None or not math.isfinite(metrics.get(name, math.nan)):
            return None
        return _SIGNS[name] * metrics[name]
