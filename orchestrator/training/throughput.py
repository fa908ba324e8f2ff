"""How fast training goes, without the time that evaluation takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.training.flops import ModelShape, Peak

T = TypeVar("T")


class Stopwatch:
    """Seconds of training; evaluations in between do not count."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._left_out = 0.0
        self._lap_from = 0.0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._started - self._left_out

    def lap(self) -> float:
        """Seconds since the last lap, or the start."""
        now = self.seconds
        since, self._lap_from = now - self._lap_from, now
        return since

    def beside(self, work: Callable[[], T]) -> T:
        """Do something else, whose time does not count."""
        started = time.perf_counter()
        done = work()
        self._left_out += time.perf_counter() - started
        return done


class Utilisation:
    """Model FLOPs utilisation of a training on `world_size` devices of one kind."""

    def __init__(
        self, shape: ModelShape | None, sequence: int | None, peak: Peak, world_size: int
    ) -> None:
        """`sequence`: tokens in a sample, None where samples are not made of tokens."""
        self.peak = peak
        self.formula = None if shape is None else shape.formula
        self.flops_per_token: float | None = None
        self.reason = peak.reason
        if shape is None:
            self.reason = "nobody has counted the model's parameters"
        elif sequence is None:
            self.reason = "samples are not made of tokens"
        else:
            self.flops_per_token = shape.flops_per_token(sequence)
        self._all_devices = None if peak.flops is None else peak.flops * world_size

    def at(self, tokens_per_s: float | None) -> float | None:
        """Share of the peak, 0 to 1, at `tokens_per_s` over all ranks; None for a `reason`."""
        if tokens_per_s is None or self.flops_per_token is None or self._all_devices is None:
            return None
        return tokens_per_s * self.flops_per_token / self._all_devices
