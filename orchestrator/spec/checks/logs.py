"""How much of what the ranks print is kept."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import kibibytes

_FEWEST = 3
"""The first file, the newest, and one between them that can go."""


_SMALLEST = 64
"""KiB, as in agent/log_limits.py."""


def cap_holds_parts(spec: JobSpec, _: Context) -> Iterator[Finding]:
    """What the agent would otherwise have to change on its own."""
    rotate, most = spec.logging.rotate, spec.logging.max
    if rotate and kibibytes(rotate) < _SMALLEST:
        yield Finding(
            ("logging", "rotate"),
            f"rotate is {rotate}, and no file of a log is smaller than {_SMALLEST}KB",
            f'raise logging.rotate to "{_SMALLEST}KB" or more',
        )
    elif most and kibibytes(most) < _FEWEST * (kibibytes(rotate) if rotate else _SMALLEST):
        yield Finding(
            ("logging", "max"),
            f"max is {most}, which is less than three files of {rotate or f'{_SMALLEST}KB'}, and "
            "the first and the newest are always kept",
            "raise logging.max, or lower logging.rotate" if rotate else "raise logging.max",
        )
