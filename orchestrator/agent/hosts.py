"""SLURM's lists of hosts, told apart without asking it: it does not always answer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_ENTRY = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")


def expand(text: str) -> list[str]:
    """All hosts that `rack[1-2]n[08-10],login` names, in SLURM's own order."""
    names: list[str] = []
    for entry in _ENTRY.findall(text):
        parts = _BRACKETS.split(entry)  # every second one stood in brackets
        choices = [
            list(_numbers(part)) if place % 2 else [part] for place, part in enumerate(parts)
        ]
        names += map("".join, itertools.product(*choices))
    return names


def _numbers(ranges: str) -> Iterator[str]:
    for one in ranges.split(","):
        first, dash, last = one.partition("-")
        if not dash:
            yield first
            continue
        for number in range(int(first), int(last) + 1):
            yield f"{number:0{len(first)}d}"
