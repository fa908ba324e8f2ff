"""What a place that metrics are sent to can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping


class Tracker(ABC):
    """Of rank 0. What it cannot write it leaves: it never ends training."""

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take in the numbers of one report."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """Write what is left; `failed`: training ended in an error."""
