"""How much of what the ranks print is kept."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import mebibytes

_FEWEST = 3
"""The first file, the newest, and one between them that can go."""


def cap_holds_parts(spec: JobSpec, _: Context) -> Iterator[Finding]:
    rotate, most = spec.logging.rotate, spec.logging.max
    if rotate and most and mebibytes(most) < _FEWEST * mebibytes(rotate):
        yield Finding(
            ("logging", "max"),
            f"max is {most}, which is less than three files of {rotate}, and the first and the "
            "newest are always kept",
            "raise logging.max, or lower logging.rotate",
        )
