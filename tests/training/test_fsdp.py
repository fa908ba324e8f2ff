"""Cut over the ranks in whatever way, training is that of one process with the same batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.oracle import Series, engines, train
from torch import nn

from orchestrator.training.engines.fsdp import refuse_uncuttable
from orchestrator.training.engines.layers import layers_of
from orchestrator.training.errors import NotSupported

pytestmark = pytest.mark.slow

STEPS = 20
# Adam divides gradients by their own size, so also those that are rounding errors: with larger
# steps even one process, accumulating, strays from itself by more than 1e-5 in the norm.
COMMON: dict[str, Any] = {
    "optimizer": {"name": "adamw", "lr": 2e-4, "weight_decay": 1.0},
    "clip_grad_norm": 0.5,
    "schedule": {"name": "cosine", "warmup_steps": 2},
}
FULL = {"name": "fsdp"}
GRAD_OP = {"name": "fsdp", "sharding": "grad-op"}
HYBRID = {"name": "fsdp", "sharding": "hybrid"}
OFFLOAD = {"name": "fsdp", "offload": True}
BYTES = {"kind": "bytes"}
LLAMA = {"kind": "llama", "layers": 2}
TIED = LLAMA | {"tied": True}
LORA = LLAMA | {"lora": 4}
QUARTER = LORA | {"base": "bfloat16"}  # a frozen base in half the bytes, adapters in float32
FROZEN = LLAMA | {"frozen": "mlp"}


def case(
    model: dict[str, Any],
    strategy: dict[str, Any] | None = None,
    *,
    micro_batch: int,
    accumulation: int = 1,
    precision: str = "fp32",
    **more: Any,
) -> dict[str, Any]:
    training = {
        "micro_batch": micro_batch,
        "accumulation": accumulation,
        "precision": precision,
    }
    return {
        "training": COMMON | training,
        "strategy": strategy or {"name": "ddp"},
        "model": model,
        "steps": STEPS,
        "heldout": 5,  # not a multiple of the ranks: some evaluate samples that do not count
        **more,
    }


ONE = {
    "bytes": case(BYTES, micro_batch=8),
    "llama": case(LLAMA, micro_batch=8),
    "tied": case(TIED, micro_batch=8),
    "lora": case(LORA, micro_batch=8),
    "frozen": case(FROZEN, micro_batch=8),
}
TWO = {
    "bytes, ddp": case(BYTES, micro_batch=4),
    "bytes, full": case(BYTES, FULL, micro_batch=4),
    "bytes, grad-op": case(BYTES, GRAD_OP, micro_batch=4),
    "bytes, offload": case(BYTES, OFFLOAD, micro_batch=4),
    "bytes, full accumulated": case(BYTES, FULL, micro_batch=1, accumulation=4),
    "bytes, grad-op accumulated": case(BYTES, GRAD_OP, micro_batch=1, accumulation=4),
    "bytes, offload accumulated": case(BYTES, OFFLOAD, micro_batch=1, accumulation=4),
    "bytes, copied": case(BYTES, HYBRID, micro_batch=1, accumulation=4, procs_per_node=1),
    "llama, ddp": case(LLAMA, micro_batch=4),
    "llama, full": case(LLAMA, FULL, micro_batch=4, meta=True),
    "llama, grad-op": case(LLAMA, GRAD_OP, micro_batch=4),
    "tied, ddp": case(TIED, micro_batch=4),
    "tied, full": case(TIED, FULL, micro_batch=4),
    "tied, grad-op": case(TIED, GRAD_OP, micro_batch=4, meta=True),
    "lora, ddp": case(LORA, micro_batch=4),
    "lora, full": case(LORA, FULL, micro_batch=4, meta=True),
    "frozen, full": case(FROZEN, FULL, micro_batch=4),
}
FOUR = {
    "bytes, hybrid": case(BYTES, HYBRID, micro_batch=2, procs_per_node=2),
    "bytes, hybrid accumulated": case(
        BYTES, HYBRID, micro_batch=1, accumulation=2, procs_per_node=2
    ),
    "tied, hybrid": case(TIED, HYBRID, micro_batch=2, procs_per_node=2, meta=True),
}
LOW = {
    f"{precision}, {strategy['name']}": case(BYTES, strategy, micro_batch=4, precision=precision)
    for precision in ("bf16", "bf16-mixed", "fp16-mixed")
    for strategy in ({"name": "ddp"}, FULL)
}
LOW_BASE = {
    "low base, ddp": case(QUARTER, micro_batch=4),
    "low base, fsdp": case(QUARTER, FULL, micro_batch=4, meta=True),
}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    found: Series = {}
    for world_size, cases in ((1, ONE), (2, TWO | LOW | LOW_BASE), (4, FOUR)):
        found |= train(tmp_path_factory.mktemp("ranks"), cases, world_size=world_size)
    return found


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Collectives in a step of one micro batch, and in a step of four."""
    found: dict[str, Any] = engines(tmp_path_factory.mktemp("traffic"), "traffic", world_size=2)[0]
    return found["traffic"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [*TWO, *FOUR])
def test_every_sharding_trains_as_one_process(series: Series, name: str) -> None:
    whole, spread = series[name.split(",")[0]], series[name]
    assert len(whole["losses"]) == STEPS
    assert spread["losses"] == pytest.approx(whole["losses"], abs=1e-5)
    assert spread["grad_norms"] == pytest.approx(whole["grad_norms"], abs=1e-5)
    assert spread["weights"] == pytest.approx(whole["weights"], rel=1e-6)
    assert spread["heldout"][0] == pytest.approx(whole["heldout"][0], abs=1e-5)


def test_gradients_were_clipped_and_models_differ(series: Series) -> None:
    """Otherwise the test above would prove less than it says."""
    assert all(max(series[name]["grad_norms"]) > 0.6 for name in ONE)
    assert len({tuple(series[name]["losses"]) for name in ONE}) == len(ONE)


@pytest.mark.parametrize("name", LOW)
def test_lower_precision_is_used_and_stays_close(series: Series, name: str) -> None:
    assert series[name]["losses"] != pytest.approx(series["bytes"]["losses"], abs=1e-5)
    assert series[name]["losses"] == pytest.approx(series["bytes"]["losses"], abs=0.1)


def test_a_frozen_base_may_have_a_lower_precision_than_its_adapters(series: Series) -> None:
    ddp, fsdp = series["low base, ddp"], series["low base, fsdp"]
    assert fsdp["losses"] == pytest.approx(ddp["losses"], abs=5e-4)
    assert fsdp["weights"] == pytest.approx(ddp["weights"], rel=1e-5)
    assert fsdp["losses"] != pytest.approx(series["lora"]["losses"], abs=1e-5)


@pytest.mark.parametrize(
    ("how", "reduction"),
    [("full", "reduce_scatter_base"), ("grad-op", "reduce_scatter_base"), ("copied", "allreduce")],
)
def test_gradients_travel_once_a_step(traffic: dict[str, Any], how: str, reduction: str) -> None:
    """For two layers and the rest of the model, whatever the number of micro batches."""
    one, four = traffic[how]
    assert one[reduction] == four[reduction] == 3


def test_parameters_are_gathered_as_often_as_the_sharding_says(traffic: dict[str, Any]) -> None:
    one, four = traffic["full"]
    layers_twice_and_the_rest = 2 * 2 + 1
    assert one["allgather_base"] == layers_twice_and_the_rest
    assert four["allgather_base"] == 4 * layers_twice_and_the_rest
    assert [step["allgather_base"] for step in traffic["grad-op"]] == [3, 3]
    assert [step.get("allgather_base") for step in traffic["copied"]] == [None, None]


def test_a_layer_that_a_model_runs_twice_is_one_layer() -> None:
    layer = nn.TransformerEncoderLayer(4, 2)
    assert layers_of(nn.ModuleDict({"layers": nn.ModuleList([layer, layer])})) == [layer]


def test_quantised_parameters_are_refused_by_name() -> None:
    model = nn.Linear(2, 2)
    model.codes = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(NotSupported, match="quantised parameter codes"):
        refuse_uncuttable(model)
