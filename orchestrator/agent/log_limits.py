"""How large a rank's log may become, as `logging.rotate` and `logging.max` have it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SIZE = re.compile(r"([0-9]{1,9})\s*([KMGT])i?B?")
_BYTES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SMALLEST = 1 << 16
_PARTS = 8
"""Parts of a log that has a cap and no size at which to rotate: what is dropped at once."""
PART, MOST = "PTX_LOG_PART", "PTX_LOG_MAX"


class Limits:
    """Bytes; None for none. No NamedTuple: a thousand shims start without typing."""

    __slots__ = ("most", "part")

    def __init__(self, part: int | None = None, most: int | None = None) -> None:
        self.part = part
        """A new part begins once one has so many."""
        self.most = most
        """Of all parts together: the oldest but the first go."""

    def __eq__(self, other: object) -> bool:
        mine = (self.part, self.most)
        return isinstance(other, Limits) and mine == (other.part, other.most)

    def __hash__(self) -> int:
        return hash((self.part, self.most))


def limits_of(logging: Mapping[str, object]) -> Limits:
    """From the plan's `logging`."""
    part, most = _bytes(logging.get("rotate")), _bytes(logging.get("max"))
    if most is not None:
        # First and newest stay, and one between them is what can go.
        part = min(part or most // _PARTS, most // 3)
    return Limits(None if part is None else max(_SMALLEST, part), most)


def limits_environment(logging: Mapping[str, object]) -> dict[str, str]:
    """For the shims, which do not read the plan; `limits_from` reads it again."""
    limits = limits_of(logging)
    named = {PART: limits.part, MOST: limits.most}
    return {name: str(value) for name, value in named.items() if value is not None}


def limits_from(env: Mapping[str, str]) -> Limits:
    values = [env.get(name, "") for name in (PART, MOST)]
    return Limits(*(int(value) if value.isdigit() else None for value in values))


def _bytes(size: object) -> int | None:
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    return int(found[1]) * _BYTES[found[2]] if found else None
