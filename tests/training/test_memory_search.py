"""Which micro batches are tried, and what the ranks know of them from one start to the next."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.spec.training import Training
from orchestrator.training.memory.known import VARIABLE, Known, fitted, known_from
from orchestrator.training.memory.search import divisors, halved, next_candidate

SAMPLES = st.integers(1, 3000)


def _search(samples: int, start: int, largest: int) -> tuple[int, list[int]]:
    """The micro batch found where up to `largest` fit, and the ones tried."""
    fits: list[int] = []
    fails: list[int] = []
    while (candidate := next_candidate(samples, start, fits, fails)) is not None:
        (fits if candidate <= largest else fails).append(candidate)
    return max(fits, default=0), fits + fails


@given(SAMPLES)
def test_divisors_are_all_that_divide(number: int) -> None:
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]


@given(SAMPLES, st.data())
def test_the_search_ends_with_the_largest_that_fits(samples: int, data: Any) -> None:
    start = data.draw(st.sampled_from(divisors(samples)))
    largest = data.draw(st.integers(0, samples + 1))
    found, tried = _search(samples, start, largest)
    assert found == max((d for d in divisors(samples) if d <= largest), default=0)
    assert tried == [] or start in tried
    assert len(tried) == len(set(tried)) <= 2 * samples.bit_length()


def test_the_search_doubles_then_bisects() -> None:
    # What fits comes first in the list, then what does not: 64 is tried before 48.
    assert _search(96, 2, 40) == (32, [2, 4, 8, 16, 32, 96, 48])
    assert _search(64, 64, 9) == (8, [8, 64, 32, 16])
    # Between 80, which fits, and 168, which does not, lie eight divisors: 120 is in their middle.
    assert _search(5040, 80, 100) == (90, [80, 90, 168, 120, 105])


@given(SAMPLES, st.data())
def test_halving_finds_a_divisor_of_at_most_half(samples: int, data: Any) -> None:
    micro_batch = data.draw(st.sampled_from(divisors(samples)))
    half = halved(samples, micro_batch)
    if half is None:
        assert micro_batch == 1
    else:
        assert samples % half == 0
        assert half <= micro_batch / 2
        assert not [d for d in divisors(samples) if half < d <= micro_batch / 2]


def test_what_is_known_comes_through_the_environment_and_keeps_the_samples_of_a_step() -> None:
    place = {"PTX_RUN_ID": "run-1", "PTX_ATTEMPT": "2"}
    training = Training(micro_batch=8, accumulation=3)
    known = known_from(place).next(4, fits={2: 1000}, fails=(8,)).next(6, searched=True)
    environ = place | {VARIABLE: known.text()}
    assert known_from(environ) == known
    assert known == Known(("run-1", "2"), 2, 6, {2: 1000}, (8,), searched=True)
    changed = fitted(training, environ)
    assert (changed.micro_batch, changed.accumulation) == (6, 4)
    assert changed.model_copy(update={"micro_batch": 8, "accumulation": 3}) == training


@pytest.mark.parametrize("elsewhere", [{"PTX_RUN_ID": "run-2"}, {"PTX_ATTEMPT": "3"}])
def test_a_run_within_a_run_and_a_later_attempt_know_nothing(elsewhere: dict[str, str]) -> None:
    place = {"PTX_RUN_ID": "run-1", "PTX_ATTEMPT": "2"}
    environ = place | {VARIABLE: known_from(place).next(4).text()} | elsewhere
    assert fitted(Training(), environ) == Training()
    assert known_from(environ).round == 0
