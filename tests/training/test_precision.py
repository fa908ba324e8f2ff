"""Number formats: what is kept in which, and loss scaling over ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.oracle import engines
from torch import nn

from orchestrator.spec.training import Training
from orchestrator.training.precision import (
    autocast,
    cast_parameters,
    compute_dtype,
    grad_scaler,
)

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return engines(tmp_path_factory.mktemp("scaling"), "overflow", "batch_norm", world_size=2)


@pytest.mark.parametrize("how", ["full", "full unclipped", "grad-op unfused", "offload"])
def test_an_overflow_in_one_ranks_part_skips_the_step_on_all(
    ranks: list[dict[str, Any]], how: str
) -> None:
    for rank in ranks:
        seen = rank["overflow"][how]
        assert seen["moved"] == [True, False, True]
        assert seen["scales"] == [65536.0, 32768.0, 32768.0]
        assert seen["finite"]
        assert seen["skipped"] == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed"])
def test_batch_norms_evaluate_alike_under_ddp_and_fsdp(
    ranks: list[dict[str, Any]], precision: str
) -> None:
    losses = {
        seen["batch_norm"][f"{strategy} {precision}"]
        for seen in ranks
        for strategy in ("ddp", "fsdp")
    }
    assert max(losses) - min(losses) < 1e-6


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 4)
        self.head.weight = self.embedding.weight
        codes = torch.zeros(2, dtype=torch.uint8)
        self.quantised = nn.Parameter(codes, requires_grad=False)
        self.register_buffer("table", torch.zeros(2))


def test_bf16_casts_parameters_and_nothing_else() -> None:
    model = Model()
    cast_parameters(model, Training(precision="bf16"))
    assert model.head.weight is model.embedding.weight
    assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == {
        "embedding.weight": torch.bfloat16,
        "head.weight": torch.bfloat16,
        "head.bias": torch.bfloat16,
        "norm.weight": torch.float32,
        "norm.bias": torch.float32,
        "norm.running_mean": torch.float32,
        "norm.running_var": torch.float32,
        "norm.num_batches_tracked": torch.int64,
        "quantised": torch.uint8,
        "table": torch.float32,
    }


@pytest.mark.parametrize(
    ("precision", "matrices", "parameters", "scaled"),
    [
        ("fp32", torch.float32, torch.float32, False),
        ("bf16", torch.bfloat16, torch.bfloat16, False),
        ("bf16-mixed", torch.bfloat16, torch.float32, False),
        ("fp16-mixed", torch.float16, torch.float32, True),
    ],
)
def test_each_precision_says_what_is_computed_kept_and_scaled(
    precision: Any, matrices: torch.dtype, parameters: torch.dtype, scaled: bool
) -> None:
    training = Training(precision=precision)
    linear = nn.Linear(2, 2)
    cast_parameters(linear, training)
    with autocast(training, CPU):
        assert linear(torch.ones(1, 2, dtype=parameters)).dtype == matrices
    assert compute_dtype(training) == matrices
    assert linear.weight.dtype == parameters
    assert grad_scaler(training, CPU).is_enabled() is scaled
