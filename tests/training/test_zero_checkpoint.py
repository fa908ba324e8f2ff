"""What ZeRO saves, every strategy and number of ranks goes on from, and the other way round."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.training_ranks import all_well, plan_file, run

from orchestrator.spec.policies import Checkpoint
from orchestrator.spec.strategy import Zero
from orchestrator.spec.training import Training
from orchestrator.training.engines.zero_config import refuse_wrong_pairs
from orchestrator.training.engines.zero_scalars import set_zero_scalars, zero_scalars
from orchestrator.training.errors import NotSupported
from orchestrator.training.plan import load_plan

SCRIPT = Path(__file__).parent.parent / "support" / "zero_checkpoint_ranks.py"
CLOSE = 1e-5
"""Between losses of strategies that add the same numbers in another order."""

Case = dict[str, Any]


def zero(stage: int, *, offload: str = "none", **options: Any) -> Case:
    return {"strategy": {"name": "zero", "stage": stage, "offload": offload}, **options}


def low(precision: str) -> Case:
    return {"training": {"precision": precision}}


LLAMA = {"kind": "llama", "layers": 2}
LORA = {"model": LLAMA | {"lora": 4}}
TIED = {"model": LLAMA | {"tied": True}}
ODD = {"model": {"odd": True}}
SGD = {"training": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}}
PLAIN: dict[str, Case] = {
    "ddp": {},
    "zero 1": zero(1),
    "zero 2": zero(2),
    "zero 3": zero(3),
    "zero 3 offloaded": zero(3, offload="all"),
}
SPECIAL: dict[str, Case] = {
    "fsdp": {"strategy": {"name": "fsdp"}},
    "zero 1 offloaded": zero(1, offload="optimizer"),
    "zero 3 gathered": zero(3, deepspeed={"persist": True}),
    "zero 3 split": zero(3, deepspeed={"split": True}),
    "zero 1 bf16-mixed": zero(1, **low("bf16-mixed")),
    "zero 2 bf16-mixed offloaded": zero(2, offload="optimizer", **low("bf16-mixed")),
    "zero 3 bf16-mixed": zero(3, **low("bf16-mixed")),
    "zero 3 bf16-mixed offloaded": zero(
        3, offload="all", deepspeed={"persist": True, "split": True}, **low("bf16-mixed")
    ),
    "zero 1 bf16": zero(1, **low("bf16")),
    "zero 3 bf16": zero(3, **low("bf16")),
    "ddp fp16": low("fp16-mixed"),
    "zero 1 fp16": zero(1, overflows=3, **low("fp16-mixed")),
    "zero 3 fp16": zero(3, overflows=2, **low("fp16-mixed")),
    "ddp lora": LORA,
    "zero 2 lora": zero(2, **LORA),
    "zero 3 lora": zero(3, **LORA),
    "zero 3 lora bf16": zero(
        3,
        model=LORA["model"] | {"made": "from files"},
        training={"precision": "bf16", "lora": {"rank": 4}},
    ),
    "ddp frozen": {"model": {"frozen": 3}},
    "zero 3 frozen": zero(3, model={"frozen": 3}),
    "ddp tied": TIED,
    "zero 1 tied": zero(1, **TIED),
    "zero 3 tied": zero(3, **TIED),
    "ddp odd": ODD,
    "zero 2 odd": zero(2, **ODD),
    "zero 3 odd": zero(3, **ODD),
    "ddp sgd": SGD,
    "zero 1 sgd": zero(1, **SGD),
    "zero 3 sgd": zero(3, **SGD),
}
EARLY = {
    f"{name}, looked at early": PLAIN[name] | {"early": True}
    for name in ("zero 1", "zero 3 offloaded")
}
ALL = PLAIN | SPECIAL
# (saved by, on so many ranks, loaded by, on so many)
PLAIN_CELLS = [
    *((one, 2, other, 2) for one in PLAIN for other in PLAIN),
    *((one, 2, "ddp", 1) for one in PLAIN),
    *(("ddp", 1, other, 2) for other in PLAIN if other != "ddp"),
    *(("ddp", 2, other, 1) for other in PLAIN if other != "ddp"),
    *(("zero 1", 1, "zero 3", 2), ("zero 2", 1, "zero 2", 2), ("zero 3", 1, "zero 1", 2)),
    *(("zero 1", 2, "zero 2", 1), ("zero 2", 2, "zero 3", 1), ("zero 3", 2, "zero 3", 1)),
    ("zero 3", 1, "ddp", 2),
]
SPECIAL_CELLS = [
    *(("fsdp", 2, other, 2) for other in ("zero 1", "zero 3")),
    *((one, 2, "fsdp", 2) for one in ("zero 2", "zero 3")),
    *((name, 2, name, 2) for name in SPECIAL if name.startswith("zero")),
    ("zero 3", 2, "zero 3 gathered", 2),
    ("zero 2", 1, "zero 3 split", 2),
    ("zero 3 gathered", 2, "zero 1 offloaded", 2),
    ("ddp lora", 2, "zero 3 lora", 2),
    ("zero 3 lora", 2, "ddp lora", 2),
    ("zero 3 lora", 2, "zero 2 lora", 2),
    ("ddp frozen", 2, "zero 3 frozen", 2),
    ("zero 3 frozen", 2, "ddp frozen", 2),
    ("ddp tied", 2, "zero 1 tied", 2),
    ("zero 1 tied", 2, "zero 3 tied", 2),
    ("zero 3 tied", 2, "ddp tied", 2),
    ("ddp odd", 2, "zero 3 odd", 2),
    ("zero 3 odd", 2, "zero 2 odd", 2),
    ("zero 2 odd", 2, "ddp odd", 2),
    ("ddp sgd", 2, "zero 3 sgd", 2),
    ("zero 3 sgd", 2, "zero 1 sgd", 2),
]
# Each adds up in its own order, and in few bits.
LOW_CELLS = [
    ("zero 1 bf16-mixed", 2, "zero 3 bf16-mixed", 2),
    ("zero 3 bf16-mixed", 2, "zero 2 bf16-mixed offloaded", 2),
    ("zero 1 bf16", 2, "zero 3 bf16", 2),
    ("zero 3 fp16", 2, "zero 1 fp16", 2),
    ("zero 1 fp16", 2, "ddp fp16", 2),
    ("ddp fp16", 2, "zero 3 fp16", 2),
    ("zero 3 bf16-mixed", 2, "zero 3", 2),
]
CELLS = PLAIN_CELLS + SPECIAL_CELLS
LOST = {
    "moments": ["exp_avg", "exp_avg_sq"],
    "first moments": ["exp_avg"],
    "second moments": ["exp_avg_sq"],
}
Cell = tuple[str, int, str, int]


def named(cell: Cell) -> str:
    saved, on, loaded, ranks = cell
    return f"{saved} on {on} -> {loaded} on {ranks}"


def saves(ranks: int) -> dict[str, Case]:
    cells = CELLS + LOW_CELLS
    wanted = {saved for saved, on, _, _ in cells if on == ranks}
    return {f"{name} on {ranks}": case for name, case in ALL.items() if name in wanted}


def loads(ranks: int) -> dict[str, Case]:
    return {
        named(cell): ALL[loaded] | {"from": f"{saved} on {on}"}
        for cell in CELLS + LOW_CELLS
        for saved, on, loaded, wanted in [cell]
        if wanted == ranks
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    lost = {
        f"{name} without {what}": PLAIN[name] | {"from": "ddp on 2", "without": kinds}
        for name in ("zero 1", "zero 3")
        for what, kinds in LOST.items()
    }
    folder = tmp_path_factory.mktemp("checkpoints")
    results: dict[str, Case] = {}
    launches = ((1, saves(1)), (2, saves(2) | EARLY | loads(2) | lost), (1, loads(1)))
    for ranks, cases in launches:
        place = tmp_path_factory.mktemp("ranks")
        plan, out = plan_file(place, world_size=ranks), place / "found.pt"
        ended = run(SCRIPT, str(out), str(folder), json.dumps(cases), world_size=ranks, plan=plan)
        all_well(ended)
        results |= torch.load(out)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS + LOW_CELLS, ids=named)
def test_every_tensor_comes_back(found: dict[str, Case], cell: Cell) -> None:
    saved, on, loaded, _ = cell
    before, after = found[f"{saved} on {on}"], found[named(cell)]
    exact = {"rtol": 0.0, "atol": 0.0, "check_dtype": True}
    torch.testing.assert_close(after["tensors"], before["tensors"], **exact)
    kinds = {key.partition("/")[0] for key in after["tensors"]}
    adam = {"model", "exp_avg", "exp_avg_sq"}
    assert kinds == ({"model", "momentum_buffer"} if "sgd" in loaded else adam)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=named)
def test_the_model_is_the_saved_one(found: dict[str, Case], cell: Cell) -> None:
    saved, on, _, _ = cell
    before, after = found[f"{saved} on {on}"]["state"], found[named(cell)]["state"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=named)
def test_the_next_losses_are_those_of_the_undisturbed_run(
    found: dict[str, Case], cell: Cell
) -> None:
    saved, on, loaded, ranks = cell
    wanted, got = found[f"{saved} on {on}"]["losses"], found[named(cell)]["losses"]
    same = (saved, on) == (loaded, ranks)
    assert got == (wanted if same else pytest.approx(wanted, abs=CLOSE))
    assert len(got) == 5


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS + LOW_CELLS, ids=named)
def test_the_counts_go_on(found: dict[str, Case], cell: Cell) -> None:
    saved, on, loaded, _ = cell
    before, after = found[f"{saved} on {on}"]["scalars"], found[named(cell)]["scalars"]
    assert before["steps"] == (None if "sgd" in saved else 3)
    shared = before.keys() & after.keys()
    assert {name: after[name] for name in shared} == {name: before[name] for name in shared}
    if "fp16" in loaded:
        assert {"loss_scale", "clean_steps"} <= shared


@pytest.mark.slow
def test_overflows_have_changed_the_scale_that_is_saved(found: dict[str, Case]) -> None:
    scales = {
        name: [found[f"{name} on 2"]["scalars"].get(key) for key in ("loss_scale", "clean_steps")]
        for name in ("ddp fp16", "zero 1 fp16", "zero 3 fp16")
    }
    assert scales == {
        "ddp fp16": [65536.0, 3],
        "zero 1 fp16": [16384.0, 0],
        "zero 3 fp16": [32768.0, 0],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name.startswith("zero")])
def test_the_pieces_are_what_deepspeed_itself_gathers(found: dict[str, Case], name: str) -> None:
    seen = found[f"{name} on 2"]
    moments = {key: t for key, t in seen["tensors"].items() if key.startswith("exp_avg")}
    assert all(torch.equal(moments[key], tensor) for key, tensor in seen["gathered"].items())
    assert moments or "sgd" in name
    assert seen["gathered"].keys() == moments.keys()
    parameters = {key: t for key, t in seen["tensors"].items() if key.startswith("model/")}
    for key, tensor in parameters.items():
        assert torch.equal(seen["state"][key.removeprefix("model/")], tensor)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp lora", "zero 2 lora", "zero 3 lora", "zero 3 lora bf16"])
def test_of_lora_the_adapter_alone_is_saved(found: dict[str, Case], name: str) -> None:
    tensors = found[f"{name} on 2"]["tensors"]
    assert tensors
    assert all("lora_" in key for key in tensors)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


@pytest.mark.slow
def test_frozen_parameters_are_not_saved(found: dict[str, Case]) -> None:
    seen = found["zero 3 frozen on 2"]
    saved = {key for key in seen["tensors"] if key.startswith("model/")}
    assert saved == {f"model/{name}" for name in list(seen["state"])[3:]}


@pytest.mark.slow
@pytest.mark.parametrize("name", EARLY)
def test_a_look_before_the_first_step_changes_nothing(found: dict[str, Case], name: str) -> None:
    plain = found[f"{name.partition(',')[0]} on 2"]
    for series in ("before", "losses"):
        assert found[name][series] == plain[series]
    torch.testing.assert_close(found[name]["tensors"], plain["tensors"], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("what", LOST)
@pytest.mark.parametrize("name", ["zero 1", "zero 3"])
def test_lost_moments_would_show(found: dict[str, Case], name: str, what: str) -> None:
    wanted = found["ddp on 2"]["losses"]
    got = found[f"{name} without {what}"]["losses"]
    apart = max(abs(one - other) for one, other in zip(got, wanted, strict=True))
    assert apart > 100 * CLOSE


def scaler_after(clean_steps: int, *, overflow_at: int | None = None) -> Any:
    """DeepSpeed's own, after an overflow at that step and so many steps without one."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

    scaler = DynamicLossScaler(
        init_scale=1024.0,
        scale_window=3,
        min_scale=1.0,
        delayed_shift=2,
        consecutive_hysteresis=False,
    )
    if overflow_at is not None:
        # As it does itself, which takes a process group.
        scaler.last_overflow_iter, scaler.cur_iter = overflow_at, overflow_at + 1
        scaler.cur_hysteresis = 1
    for _ in range(clean_steps):
        scaler.update_scale(False)
    return scaler


def engine_with(scaler: Any) -> SimpleNamespace:
    parameter = torch.nn.Parameter(torch.zeros(1))
    return SimpleNamespace(
        optimizer=SimpleNamespace(loss_scaler=scaler),
        basic_optimizer=torch.optim.AdamW([parameter]),
        skipped_steps=0,
    )


@pytest.mark.slow
@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("overflow_at", [None, 0, 5])
def test_the_loss_scale_grows_at_the_same_step_as_undisturbed(
    steps: int, overflow_at: int | None
) -> None:
    undisturbed, resumed = scaler_after(steps, overflow_at=overflow_at), scaler_after(0)
    set_zero_scalars(engine_with(resumed), zero_scalars(engine_with(undisturbed)))
    for _ in range(8):
        assert resumed.cur_scale == undisturbed.cur_scale
        assert resumed.cur_hysteresis == undisturbed.cur_hysteresis
        for scaler in (resumed, undisturbed):
            scaler.update_scale(False)


def test_eight_bit_state_is_refused_where_checkpoints_are_written() -> None:
    training = Training.model_validate({"optimizer": {"name": "adamw-8bit"}})
    plan = dataclasses.replace(
        load_plan({}, gpus=0), strategy=Zero(name="zero", stage=2), training=training
    )
    refuse_wrong_pairs(plan)
    saving = dataclasses.replace(plan, checkpoint=Checkpoint(every_steps=10))
    with pytest.raises(NotSupported, match="adamw-8bit"):
        refuse_wrong_pairs(saving)
