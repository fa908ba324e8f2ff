"""How far a training has come: the numbers that are the same on all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    step: int = 0
    """Optimizer steps done."""
    samples: int = 0
    """Samples taken, over all ranks: the position in the data, whatever the batch size was."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    """What the engine keeps beside tensors: the optimizer's count of steps, the loss scale."""
    early_stopping: Mapping[str, Any] | None = None
    """As `EarlyStopping.state` gives it."""
    eval_loss: float | None = None
    """The last held-out loss."""
    samples_skipped: int = 0
    """Of `samples`, those that could not be read."""
    micro_batch: int | None = None
    """The one that was found to fit, where the spec's was not used; of `samples_a_rank`."""
    samples_a_rank: int = 0
    """Micro batch times accumulation."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Progress:
        """What a later ptx has added is left out. Raises KeyError where one of the first three is
        missing."""
        known = {name: fields[name] for name in ("step", "samples", "engine")}
        known |= {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        return cls(**known)
