"""The byte transformer, its optimizer and its learning rate."""

from __future__ import annotations

import math

import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.spec.training import Optimizer, Schedule
from orchestrator.training.language.byte_model import (
    ByteTransformer,
    NextByte,
    rotary_tables,
    rotated,
)
from orchestrator.training.optim import build_optimizer, lr_at

pytestmark = pytest.mark.slow


@pytest.fixture
def model() -> ByteTransformer:
    torch.manual_seed(0)
    return ByteTransformer(context=32, dim=32, layers=2, heads=4)


def test_no_logit_knows_a_later_byte(model: ByteTransformer) -> None:
    tokens = torch.randint(256, (1, 32))
    changed = tokens.clone()
    changed[0, 20] = (changed[0, 20] + 1) % 256
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_the_first_loss_is_that_of_a_guess(model: ByteTransformer) -> None:
    tokens = torch.randint(256, (8, 33))
    loss, _ = NextByte(model)({"tokens": tokens[:, :-1]}, tokens[:, 1:], {})
    assert loss.item() / (8 * 32) == pytest.approx(math.log(256), abs=0.1)


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    cos, sin = rotary_tables(16, 8)
    q, k = (torch.randn(8).expand(16, 8) for _ in range(2))
    turned_q, turned_k = rotated(q, cos, sin), rotated(k, cos, sin)
    assert torch.allclose(turned_q.norm(dim=-1), q.norm(dim=-1))
    scores = turned_q @ turned_k.T
    assert torch.allclose(scores.diagonal(3), scores.diagonal(3)[0].expand(13), atol=1e-5)
    assert not torch.allclose(scores.diagonal(3)[0], scores.diagonal(4)[0])


def test_embedding_and_output_are_one_matrix(model: ByteTransformer) -> None:
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    assert shapes.count((256, 32)) == 1


@pytest.mark.parametrize(("dim", "heads"), [(10, 4), (12, 4)])
def test_dims_that_do_not_divide_are_refused(dim: int, heads: int) -> None:
    with pytest.raises(UserError, match="does not divide"):
        ByteTransformer(context=8, dim=dim, layers=1, heads=heads)


def test_weight_decay_is_for_matrices_alone(model: ByteTransformer) -> None:
    optimizer = build_optimizer(model, Optimizer(weight_decay=0.1))
    decayed, free = optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim == 2 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [1, 1, 1, 1, 1]),
        (Schedule(name="linear"), [1, 0.75, 0.5, 0.25, 0]),
        (Schedule(name="linear", warmup_steps=2, final_ratio=0.5), [0.5, 1, 1, 0.75, 0.5]),
        (Schedule(name="cosine", final_ratio=0.2), [1, 0.883, 0.6, 0.317, 0.2]),
        (Schedule(name="exponential", final_ratio=0.0625), [1, 0.5, 0.25, 0.125, 0.0625]),
        (Schedule(warmup_steps=10), [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_the_learning_rate_warms_up_and_ends_at_its_final_ratio(
    schedule: Schedule, expected: list[float]
) -> None:
    rates = [lr_at(step, 5, 1.0, schedule) for step in range(5)]
    assert rates == pytest.approx(expected, abs=1e-3)


def test_a_training_of_one_step_has_a_learning_rate() -> None:
    assert lr_at(0, 1, 2.0, Schedule(name="cosine")) == 2.0
