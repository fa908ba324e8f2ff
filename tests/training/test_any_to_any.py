"""What one engine on some ranks has saved, any other on as many as it likes goes on from."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from support.training_ranks import all_well, plan_file, run

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "support" / "checkpoint_ranks.py"
LOCAL_WARM = {"local_sgd": {"interval": 4, "warmup_steps": 100}}
CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {"ddp 1": {}},
    2: {
        "ddp 2": {},
        "full 2": {"strategy": {"name": "fsdp"}},
        "grad-op 2": {"strategy": {"name": "fsdp", "sharding": "grad-op"}},
        "offload 2": {"strategy": {"name": "fsdp", "offload": True}},
        "pipeline 2": {"strategy": {"name": "ddp", "pipeline_parallel": 2}},
        "local sgd 2": {"training": LOCAL_WARM},
    },
    4: {
        "ddp 4": {},
        "hybrid 4": {"strategy": {"name": "fsdp", "sharding": "hybrid"}, "procs_per_node": 2},
        "tensor 4": {"strategy": {"name": "fsdp", "tensor_parallel": 2}},
        "pipeline 4": {"strategy": {"name": "fsdp", "pipeline_parallel": 2}},
    },
}
LLAMA = {"kind": "llama", "layers": 2, "tied": True}
FULL = {"strategy": {"name": "fsdp"}}
PIPELINE = {"strategy": {"name": "ddp", "pipeline_parallel": 2}}


def optimizer(**settings: Any) -> dict[str, Any]:
    return {"training": {"optimizer": {"name": "adamw", "lr": 5e-3} | settings}}


SGD = optimizer(name="sgd", momentum=0.9, weight_decay=0.1)
LORA = {"model": LLAMA | {"tied": False, "lora": 4}}
ODD = {"model": {"kind": "odd"}}
BF16 = {"training": {"precision": "bf16"}}
FP16 = {"training": {"precision": "fp16-mixed"}}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Saved by two ranks, loaded by two others.
    "momentum": (SGD, FULL | SGD),
    "adapters": (FULL | LORA, LORA | {"seed": 1234}),  # on the same base
    "untied": (PIPELINE | {"model": LLAMA | {"tied": False}}, {"model": LLAMA | {"tied": False}}),
    "low to full": (BF16, FULL),
    "full to low": ({}, FULL | BF16),
    "unequal steps": (FULL | {"idle": "layers.1.mlp"}, PIPELINE),
    "unequal steps of a stage": (PIPELINE | {"idle": "layers.1.mlp"}, {}),
    "skipped": (FULL | FP16 | {"overflow": True}, FP16),
    "skipped, in a pipeline": (FP16 | {"overflow": True}, PIPELINE | FP16),
}
NAMES = [name for cases in CASES.values() for name in cases]
WORLD = {name: world for world, cases in CASES.items() for name in cases}


class Launches:
    """Jobs of `checkpoint_ranks` by world size."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "checkpoints"
        self.ranks: dict[str, list[Any]] = {}
        """By job, what each rank saw."""

    def run(self, name: str, jobs: dict[int, list[dict[str, Any]]]) -> None:
        for world_size, mine in jobs.items():
            folder = self.folder / f"{name}-{world_size}"
            folder.mkdir(parents=True)
            plan = plan_file(folder, world_size=world_size)
            args = (str(folder / "seen"), str(self.root), json.dumps(mine))
            all_well(run(SCRIPT, *args, world_size=world_size, plan=plan))
            seen = [json.loads((folder / f"seen-{n}.json").read_text()) for n in range(world_size)]
            for job in seen[0]:
                self.ranks[job] = [rank[job] for rank in seen]

    def __getitem__(self, name: str) -> Any:
        """What rank 0 saw."""
        return self.ranks[name][0]


def _saves(world: int) -> list[dict[str, Any]]:
    return [
        {"do": "save", "as": f"save {name}", "name": name, "case": case}
        for name, case in CASES[world].items()
    ]


def _loads(world: int) -> list[dict[str, Any]]:
    return [
        {"do": "load", "as": f"load {name}", "names": NAMES, "case": case}
        for name, case in CASES[world].items()
    ]


def _pairs() -> list[dict[str, Any]]:
    jobs = []
    for name, (saved, loaded) in PAIRS.items():
        jobs += [
            {"do": "save", "as": f"save {name}", "name": name, "case": saved},
            {"do": "load", "as": f"load {name}", "names": [name], "case": loaded},
        ]
    return jobs


REFUSED: dict[str, dict[str, Any]] = {
    "larger": {"model": LLAMA | {"layers": 3}},
    "smaller": {"model": LLAMA | {"layers": 1}},
    "smaller stages": PIPELINE | {"model": LLAMA | {"layers": 1 + 1, "tied": False}},
    "other kind": {"model": {"kind": "odd"}},
    "momentum": SGD,
    "plain": optimizer(name="sgd", momentum=0.0),
}
NAMED: dict[str, dict[str, Any]] = {
    "plain": {},
    "compiled": {"training": {"compile": True}},
    "recomputed": FULL | {"training": {"activation_checkpointing": {"mode": "full"}}},
    "selective": {"training": {"activation_checkpointing": {"mode": "selective"}}},
}
CHECKS: list[dict[str, Any]] = [
    {
        "do": "local_sgd",
        "as": "local sgd",
        "name": "apart",
        "case": {"training": {"local_sgd": {"interval": 4, "warmup_steps": 1}}},
        "elsewhere": FULL,
    },
    {"do": "refusals", "as": "refusals", "name": "ddp 2", "cases": REFUSED},
    {"do": "names", "as": "names", "cases": NAMED},
    {"do": "outside", "as": "outside"},
    {"do": "load", "as": "odd", "names": ["odd 1", "odd 4"], "case": FULL | ODD},
]
MEMORY: list[dict[str, Any]] = [{"do": "memory", "as": "memory"}]
ALONE: list[dict[str, Any]] = [
    {"do": "load", "as": "zeroed", "names": ["ddp 2"], "case": {}, "without": kind}
    | {"as": f"without {kind}"}
    for kind in ("exp_avg", "exp_avg_sq")
]


def _odd(world: int) -> list[dict[str, Any]]:
    name = f"odd {world}"
    return [{"do": "save", "as": f"save {name}", "name": name, "case": FULL | ODD}]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Launches:
    launches = Launches(tmp_path_factory.mktemp("any"))
    launches.run("save", {1: MEMORY + _saves(1) + _odd(1), 2: _saves(2)})
    launches.run("both", {4: _saves(4) + _odd(4) + _loads(4)})
    launches.run("load", {1: _loads(1) + ALONE, 2: _loads(2) + _pairs() + CHECKS})
    return launches


@pytest.mark.parametrize("name", NAMES)
def test_a_save_changes_nothing(found: Launches, name: str) -> None:
    assert found[f"save {name}"]["changed"] == []


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_parameters_moments_and_steps_arrive_bit_by_bit(
    found: Launches, source: str, target: str
) -> None:
    assert found[f"load {target}"][source]["unequal"] == []


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_the_next_losses_are_those_of_who_saved(found: Launches, source: str, target: str) -> None:
    expected = found[f"save {source}"]["losses"]
    assert found[f"load {target}"][source]["losses"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_ranks_go_on_to_the_last_bit(found: Launches, name: str) -> None:
    """Also where DDP on four ranks lays its buckets out anew after the first step."""
    assert found[f"load {name}"][name]["losses"] == found[f"save {name}"]["losses"]


@pytest.mark.parametrize("kind", ["exp_avg", "exp_avg_sq"])
def test_without_its_moments_training_would_go_on_differently(found: Launches, kind: str) -> None:
    """So that the test above sees them."""
    expected, without = found["save ddp 2"]["losses"], found[f"without {kind}"]["ddp 2"]["losses"]
    assert without[0] == pytest.approx(expected[0], abs=1e-5)
    assert min(abs(a - b) for a, b in zip(without[1:], expected[1:], strict=True)) > 1e-4


@pytest.mark.parametrize("name", PAIRS)
def test_every_kind_of_training_goes_on_elsewhere(found: Launches, name: str) -> None:
    saved, loaded = found[f"save {name}"], found[f"load {name}"][name]
    assert loaded["unequal"] == []
    for number in ("steps", "steps_of", "calls", "skipped"):
        assert loaded["scalars"][number] == saved["scalars"][number]
    if "low" not in name and "skipped" not in name:  # whose steps have other roundings
        assert loaded["losses"] == pytest.approx(saved["losses"], abs=1e-5)


def test_a_loss_scale_goes_on_where_it_was(found: Launches) -> None:
    for name in ("skipped", "skipped, in a pipeline"):
        saved = found[f"save {name}"]["scalars"]
        assert (saved["steps"], saved["skipped"], saved["clean_steps"]) == (2, 1, 1)
        assert saved["loss_scale"] == 2.0**15  # halved from its start
        assert found[f"load {name}"][name]["scalars"] == saved


def test_parameters_that_a_step_left_out_keep_their_own_count(found: Launches) -> None:
    for name in ("unequal steps", "unequal steps of a stage"):
        saved = found[f"save {name}"]["scalars"]
        assert saved["steps"] == 3
        assert saved["steps_of"] == {
            f"model.layers.1.mlp.{part}_proj.weight": 2 for part in ("gate", "up", "down")
        }


def test_of_a_frozen_base_nothing_is_saved(found: Launches) -> None:
    assert all("lora_" in key for key in found["save adapters"]["keys"])


@pytest.mark.parametrize("source", ["odd 1", "odd 4"])
def test_sizes_that_no_world_divides_arrive_too(found: Launches, source: str) -> None:
    """Parts of unequal size, and none; and rank 0's statistics on all ranks."""
    assert found["odd"][source]["unequal"] == []
    assert "model/2.running_mean" in found[f"save {source}"]["keys"]


def test_loading_takes_the_memory_of_a_tensor_and_not_of_a_model(found: Launches) -> None:
    """The last 32 of 64 tensors would take 32 times as much."""
    seen = found["memory"]
    assert seen["right"]
    assert seen["more"] < 4 * seen["tensor"]


def test_wrapped_layers_have_the_names_of_plain_ones(found: Launches) -> None:
    names = found["names"]
    assert len(names["plain"]) > 20
    assert all(names[what] == names["plain"] for what in NAMED)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("larger", "has no model.layers.2.self_attn.q_proj.weight: it is a checkpoint of another"),
        ("smaller", r"has exp_avg of model\.layers\.1\..* and more, which are not trained here"),
        ("smaller stages", "has no lm_head.weight: it is a checkpoint of another model"),
        ("other kind", "has no 0.weight: it is a checkpoint of another model"),
        ("momentum", "has no momentum_buffer of model.embed_tokens.weight, but exp_avg and "),
        ("plain", r"has exp_avg of model\..* and more, which are not trained here"),
    ],
)
def test_another_model_is_refused_by_name_on_all_ranks(
    found: Launches, what: str, said: str
) -> None:
    ranks = [seen[what] for seen in found.ranks["refusals"]]
    assert re.search(said, ranks[0])
    assert ranks[0] == ranks[1]


def test_what_would_not_be_saved_is_not_trained_for_days(found: Launches) -> None:
    for strategy in ("ddp", "fsdp"):
        assert "and temperature is beside it" in found["outside"][strategy]


class TestLocalSgd:
    """Between two averages no two ranks have the same model."""

    def test_a_save_changes_nothing_in_between(self, found: Launches) -> None:
        for seen in found.ranks["local sgd"]:
            assert "model/model.norm.weight" in seen["apart"]
            assert "exp_avg/model.norm.weight" in seen["apart"]
            assert seen["losses"]["saving"] == seen["losses"]["undisturbed"]

    def test_the_same_ranks_go_on_as_if_they_had_not_stopped(self, found: Launches) -> None:
        for seen in found.ranks["local sgd"]:
            assert seen["mine"] == []
            assert seen["losses"]["resumed"] == seen["losses"]["undisturbed"]
            assert seen["end"] == []

    def test_others_go_on_from_the_mean(self, found: Launches) -> None:
        assert found["local sgd"]["means"] == []

    def test_so_does_local_sgd_from_a_converted_one(self, found: Launches) -> None:
        """In which the ranks' own tensors are no more."""
        for seen in found.ranks["local sgd"]:
            assert seen["converted"] == []
            losses = [loss for step in seen["losses"]["converted"] for loss in step]
            assert len(losses) == 2 * len(seen["losses"]["resumed"]) > 0
            assert all(map(math.isfinite, losses))
