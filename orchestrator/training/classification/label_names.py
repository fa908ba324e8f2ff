"""Labels as files write them, and the numbers that a model gives them."""

from __future__ import annotations

from collections.abc import Iterable


def class_names(labels: Iterable[str]) -> list[str]:
    """Each label once, in the order of its id: by number where all are whole numbers, else by
    character code, so that every machine finds the same order."""
    names = sorted(set(labels))
    return sorted(names, key=int) if all(_is_integer(name) for name in names) else names


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit()
