"""Optimizers, what weight decay is for, and the learning rate over time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny_llama import tiny_llama
from torch import nn

from orchestrator.spec.training import Optimizer, Schedule
from orchestrator.training.errors import NotSupported
from orchestrator.training.optim import build_optimizer, decay_groups, lr_at

pytestmark = pytest.mark.slow


def _trained(model: nn.Module, **settings: Any) -> list[torch.Tensor]:
    """Parameters after three steps with the gradients 1, 2, 3."""
    optimizer = build_optimizer(model, Optimizer.model_validate(settings))
    for value in (1.0, 2.0, 3.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def _layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("settings", "by_hand"),
    [
        (
            {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.2},
            lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        ),
        (
            {"name": "adam", "lr": 0.1, "betas": [0.8, 0.9], "weight_decay": 0.2},
            lambda groups: torch.optim.Adam(groups, lr=0.1, betas=(0.8, 0.9)),
        ),
        (
            {"name": "adamw", "lr": 0.1, "betas": [0.8, 0.9], "weight_decay": 0.2},
            lambda groups: torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.9)),
        ),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_each_optimizer_is_pytorchs_with_the_settings(
    settings: dict[str, Any], by_hand: Any, fused: bool
) -> None:
    model = _layer()
    optimizer = by_hand(
        [
            {"params": [model.weight], "weight_decay": 0.2},
            {"params": [model.bias], "weight_decay": 0.0},
        ]
    )
    for value in (1.0, 2.0, 3.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
    found = _trained(_layer(), **settings, fused=fused)
    torch.testing.assert_close(found, [p.detach() for p in model.parameters()])
    assert not torch.equal(found[0], _layer().weight)


def test_fused_falls_back_with_a_note_where_there_is_no_such_kernel(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = nn.Linear(2, 2, dtype=torch.complex64)
    optimizer = build_optimizer(model, Optimizer(name="adamw", fused=True))
    assert optimizer.defaults["fused"] is False
    assert "training.optimizer.fused has no effect here" in capsys.readouterr().err
    build_optimizer(_layer(), Optimizer(name="adamw", fused=True))
    assert capsys.readouterr().err == ""


def test_weight_decay_is_for_matrices_and_embeddings_and_not_for_norms_and_biases() -> None:
    model = tiny_llama()
    model.model.layers[0].requires_grad_(False)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = decay_groups(model, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(names[id(p)].endswith("norm.weight") for p in spared["params"])
    assert "model.embed_tokens.weight" in [names[id(p)] for p in decayed["params"]]
    grouped = sorted(names[id(p)] for group in (decayed, spared) for p in group["params"])
    assert grouped == sorted(n for n, p in model.named_parameters() if p.requires_grad)


def test_eight_bit_states_are_refused_on_the_cpu_with_one_sentence() -> None:
    with pytest.raises(NotSupported, match="works on GPUs alone"):
        build_optimizer(_layer(), Optimizer(name="adamw-8bit"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.7, 0.4, 0.1]),
        ("cosine", [0.5, 1.0, 1.0, 0.775, 0.325, 0.1]),
        ("exponential", [0.5, 1.0, 1.0, 0.4642, 0.2154, 0.1]),
    ],
)
def test_schedules_warm_up_and_end_at_the_final_ratio(name: str, expected: list[float]) -> None:
    schedule = Schedule.model_validate({"name": name, "warmup_steps": 2, "final_ratio": 0.1})
    rates = [lr_at(step, 6, 2.0, schedule) for step in range(6)]
    assert rates == pytest.approx([2.0 * rate for rate in expected], abs=1e-3)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "exponential"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 5), (3, 3), (4, 3)])
def test_very_short_trainings_have_a_learning_rate_too(name: str, steps: int, warmup: int) -> None:
    schedule = Schedule.model_validate({"name": name, "warmup_steps": warmup, "final_ratio": 0.5})
    for step in range(steps):
        assert 0.0 < lr_at(step, steps, 1.0, schedule) <= 1.0
