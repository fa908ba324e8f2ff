"""Sets of ranks or nodes, as people type and read them: `0,8-15`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.errors import UserError

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True)
class Numbers:
    """A set such as `0,8-15`, kept as ranges: `0-999999999` costs nothing."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str, option: str) -> Numbers:
        """Raises UserError, naming the option."""
        ranges = []
        for part in text.split(","):
            found = _RANGE.fullmatch(part.strip())
            first = int(found[1]) if found else 0
            last = int(found[2] or found[1]) if found else -1
            if last < first:
                raise UserError(
                    f"{option} {text!r}: {part.strip()!r} is neither a number nor a range.",
                    hint=f"Write it as {option} 3 or {option} 0,8-15.",
                )
            ranges.append((first, last))
        return cls(tuple(ranges))

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self.ranges)


def spoken(numbers: Iterable[int]) -> str:
    """`0-3, 8` for 0 1 2 3 8; `none` for nothing."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts) or "none"
