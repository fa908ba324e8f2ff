"""Which micro batch to try next. A rank's samples of a step stay the same, so only their divisors
come into question."""

from __future__ import annotations

from collections.abc import Collection


def divisors(number: int) -> list[int]:
    """All of them, from 1 to `number`."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def halved(samples: int, micro_batch: int) -> int | None:
    """The largest divisor of `samples` up to half of `micro_batch`; None below 1."""
    return max((d for d in divisors(samples) if d <= micro_batch // 2), default=None)


def next_candidate(
    samples: int, start: int, fits: Collection[int], fails: Collection[int]
) -> int | None:
    """The next micro batch to try in search of the largest that fits; None when that is known.

    From `start`, a divisor of `samples`, it doubles while things fit and halves while they do not,
    then bisects the divisors in between.
    """
    low, high = max(fits, default=0), min(fails, default=samples + 1)
    between = [d for d in divisors(samples) if low < d < high]
    if not between:
        return None
    if not fits and not fails:
        return start
    if not fails:
        return next((d for d in between if d >= 2 * low), between[-1])
    if not fits:
        return max((d for d in between if d <= high // 2), default=between[0])
    return between[len(between) // 2]
