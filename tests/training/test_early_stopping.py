"""When training gives up waiting for a better held-out loss."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.spec.training import Evaluation
from orchestrator.training.early_stopping import EarlyStopping

LOSSES = st.lists(st.floats(min_value=-100, max_value=100), max_size=30)


def _given_up_at(losses: list[float], **settings: float) -> int | None:
    early = EarlyStopping(Evaluation.model_validate(settings))
    return next((n for n, loss in enumerate(losses) if early.gives_up(loss)), None)


@pytest.mark.parametrize(
    ("losses", "settings", "at"),
    [
        ([3, 2, 2, 2], {"patience": 2}, 3),
        ([3, 2, 2.1, 1.9, 2, 2], {"patience": 2}, 5),
        ([3, 3, 3, 3], {}, None),
        ([3, 2.9, 2.8, 2.7], {"patience": 2, "min_delta": 0.5}, 2),
        # Small steps add up: better is measured from the last that was.
        ([3, 2.9, 2.4, 2.3, 1.8], {"patience": 2, "min_delta": 0.5}, None),
        ([math.nan, 3, math.nan, math.nan], {"patience": 2}, 3),
        ([math.inf, math.inf], {"patience": 2}, 1),
    ],
)
def test_it_gives_up_after_so_many_in_a_row_without_a_better_one(
    losses: list[float], settings: dict[str, float], at: int | None
) -> None:
    assert _given_up_at(losses, **settings) == at


@given(LOSSES, st.integers(1, 5))
def test_the_last_better_one_lies_exactly_patience_before(
    losses: list[float], patience: int
) -> None:
    at = _given_up_at(losses, patience=patience)
    seen = losses if at is None else losses[: at + 1]
    records = [n for n, loss in enumerate(seen) if loss < min(seen[:n], default=math.inf)]
    if at is not None:
        assert at - records[-1] == patience
    else:
        assert not losses or len(losses) - 1 - records[-1] < patience


@given(LOSSES)
def test_the_best_is_the_lowest(losses: list[float]) -> None:
    early = EarlyStopping(Evaluation())
    assert not any([early.gives_up(loss) for loss in losses])  # noqa: C419 - take in all of them
    assert early.best == min(losses, default=None)
