"""Which samples are trained on, and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.training.sampling import permuted

TRAIN, VALIDATION, TEST = "train", "validation", "test"


class Split(NamedTuple):
    """Numbers of samples; no number is in two of them."""

    train: list[int]
    validation: list[int]
    test: list[int]


def stratified(
    labels: Sequence[int],
    *,
    validation: float,
    test: float,
    seed: int,
    among: Sequence[int] | None = None,
) -> Split:
    """Hold out these shares of every class, chosen by `seed` alone.

    A share above 0 takes at least one sample of a class that has three or more. `among`: numbers
    of the samples to split, where not all are.
    """
    members: dict[int, list[int]] = {}
    for number in range(len(labels)) if among is None else among:
        members.setdefault(labels[number], []).append(number)
    split = Split([], [], [])
    for label, numbers in sorted(members.items()):
        key = f"split/{seed}/{label}".encode()
        shuffled = [numbers[permuted(i, len(numbers), key)] for i in range(len(numbers))]
        for_test = _count(test, len(numbers))
        for_both = for_test + _count(validation, len(numbers))
        split.test.extend(shuffled[:for_test])
        split.validation.extend(shuffled[for_test:for_both])
        split.train.extend(shuffled[for_both:])
    return Split(*(sorted(part) for part in split))


def _count(share: float, size: int) -> int:
    return max(round(share * size), 1 if share and size >= 3 else 0)


def some_of(numbers: Sequence[int], count: int, *, seed: int) -> list[int]:
    """At most `count` of them, chosen by `seed`: the first would be of few classes, since many
    data sets are ordered by class."""
    key = f"some/{seed}".encode()
    return [numbers[permuted(i, len(numbers), key)] for i in range(min(count, len(numbers)))]
