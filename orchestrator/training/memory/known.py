"""What this start of a run has learned about its micro batch, from one image of a rank to the next.

A rank whose memory runs out starts anew in place (see `restart`). It keeps its process, and what
it knows travels in its environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from orchestrator.spec.training import Training

VARIABLE = "PTX_MICRO_BATCH"


@dataclass(frozen=True)
class Known:
    """Micro batches are in samples a rank."""

    start: tuple[str | None, str | None] = (None, None)
    """Run id and attempt: a run that a rank itself submits inherits the environment."""
    round: int = 0
    """How often the ranks have started anew."""
    micro_batch: int | None = None
    """The one to use; None: the spec's."""
    fits: dict[int, int] = field(default_factory=dict)
    """Tried, and the most memory in bytes that a rank then took."""
    fails: tuple[int, ...] = ()
    """Memory ran out with these."""
    searched: bool = False
    """The largest that fits has been looked for and found."""

    def next(self, micro_batch: int, **learned: object) -> Known:
        """For the image after this one."""
        return replace(self, round=self.round + 1, micro_batch=micro_batch, **learned)  # type: ignore[arg-type]

    def text(self) -> str:
        """One line for the environment."""
        return json.dumps(asdict(self))


def known_from(environ: Mapping[str, str]) -> Known:
    """What an earlier image of this rank has left; nothing where this is the first."""
    start = environ.get("PTX_RUN_ID"), environ.get("PTX_ATTEMPT")
    text = environ.get(VARIABLE)
    if text is None:
        return Known(start)
    fields = json.loads(text)
    if tuple(fields["start"]) != start:
        return Known(start)
    return Known(
        start=start,
        round=fields["round"],
        micro_batch=fields["micro_batch"],
        fits={int(key): value for key, value in fields["fits"].items()},
        fails=tuple(fields["fails"]),
        searched=fields["searched"],
    )


def fitted(training: Training, environ: Mapping[str, str]) -> Training:
    """The settings with the micro batch that is known to be right, and the accumulation that
    leaves the samples of a step as they are."""
    known = known_from(environ)
    if known.micro_batch is None:
        return training
    samples = training.micro_batch * training.accumulation
    changed = {"micro_batch": known.micro_batch, "accumulation": samples // known.micro_batch}
    return training.model_copy(update=changed)
