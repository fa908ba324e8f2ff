"""How far a training has come: the numbers that are the same on all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    step: int = 0
    """Optimizer steps done."""
    samples: int = 0
    """Samples taken, over all ranks: the position in the data, whatever the batch size was."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """What the engine keeps beside tensors: the optimizer's count of steps, the loss scale."""

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "samples": self.samples, "engine": dict(self.engine)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Progress:
        """Raises KeyError where a field is missing."""
        return cls(fields["step"], fields["samples"], fields["engine"])
