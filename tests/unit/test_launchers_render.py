from __future__ import annotations

import json
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
import yaml

from launchers import registry
from launchers.accelerate import Accelerate
from launchers.deepspeed import Deepspeed
from launchers.deepspeed_config import deepspeed_config
from launchers.facts import Facts, Runtime, Word
from launchers.torchrun import Torchrun

GPUS = {"run_id": "x-000001", "nodes": 2, "procs_per_node": 8, "gpus_per_node": 8}
BUILT_IN = ("torchrun", "accelerate", "deepspeed")


def facts(**more: Any) -> Facts:
    return Facts(**(GPUS | more))


def words(argv: tuple[Word, ...]) -> list[str]:
    return [word.template if isinstance(word, Runtime) else word for word in argv]


def config(**more: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(
        Accelerate().render(facts(**more)).files["accelerate.yaml"]
    )
    return loaded


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_launcher_is_found_by_its_name(name: str) -> None:
    assert registry.get(name).name == name
    assert name in registry.names()


def test_an_unknown_launcher_names_those_that_there_are() -> None:
    with pytest.raises(registry.UnknownLauncher) as caught:
        registry.get("torchrunn")
    assert set(BUILT_IN) <= set(caught.value.known)


def test_a_package_adds_a_launcher_through_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    added = EntryPoint("mine", "launchers.torchrun:Torchrun", "ptx.launchers")

    def entry_points(**select: str) -> EntryPoints:
        return EntryPoints([added]).select(**select)

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    assert isinstance(registry.get("mine"), Torchrun)
    assert registry.names() == (*BUILT_IN, "mine")


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("nodes", [1, 2])
def test_every_flag_that_a_launcher_renders_is_its_own(name: str, nodes: int) -> None:
    """So that no spec can give one of them another value."""
    launcher = registry.get(name)
    owned = {flag.replace("_", "-") for flag in launcher.owned_flags}
    for backend in ("c10d", "static"):
        told = facts(nodes=nodes, rdzv_backend=backend, strategy="zero", zero_stage=2)
        argv = words(launcher.render(told).argv)[3:]
        flags = {word.partition("=")[0].replace("_", "-") for word in argv}
        assert flags <= owned


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_persons_flags_come_first_so_that_ptxs_own_win(name: str) -> None:
    argv = words(registry.get(name).render(facts(extra_args=("--theirs=1",))).argv)
    assert argv[3] == "--theirs=1"
    assert argv[-1] in ("--no-python", "--no_python")


def test_torchrun_on_one_node_takes_no_fixed_port() -> None:
    argv = words(Torchrun().render(facts(nodes=1)).argv)
    assert "--standalone" in argv
    assert not any("PORT" in word for word in argv)


def test_torchrun_tells_the_head_that_it_is_the_host() -> None:
    argv = words(Torchrun().render(facts(rdzv_timeout=90)).argv)
    assert "--rdzv-conf=is_host=${PTX_IS_HEAD},join_timeout=90,read_timeout=90" in argv
    assert "--rdzv-id=x-000001.${PTX_ATTEMPT}" in argv


def test_static_rendezvous_gives_each_node_its_rank() -> None:
    argv = words(Torchrun().render(facts(rdzv_backend="static")).argv)
    assert "--node-rank=${PTX_NODE_RANK}" in argv
    assert "--master-addr=${PTX_HEAD_ADDR}" in argv


def test_accelerate_meets_on_the_command_line_and_counts_all_processes_in_its_file() -> None:
    launch = Accelerate().render(facts())
    assert config()["num_processes"] == 16
    assert config()["num_machines"] == 2
    assert not {"rdzv_backend", "same_network", "machine_rank"} & config().keys()
    assert "--config_file=${PTX_BUNDLE}/accelerate.yaml" in words(launch.argv)
    assert "--machine_rank=${PTX_NODE_RANK}" in words(launch.argv)
    assert launch.env["PET_LOCAL_ADDR"] == Runtime("${PTX_LOCAL_ADDR}")


def test_accelerate_on_cpu_starts_several_processes() -> None:
    launch = Accelerate().render(facts(gpus_per_node=0, procs_per_node=2))
    assert config(gpus_per_node=0)["distributed_type"] == "MULTI_GPU"
    assert launch.env["ACCELERATE_USE_CPU"] == "true"
    assert "--cpu" not in words(launch.argv)


@pytest.mark.parametrize("name", BUILT_IN)
def test_zero_on_cpu_is_deepspeeds_cpu_and_nothing_else(name: str) -> None:
    """accelerate's own variable for CPU would make plain data parallelism of it."""
    env = registry.get(name).render(facts(gpus_per_node=0, strategy="zero", zero_stage=2)).env
    assert env["DS_ACCELERATOR"] == "cpu"
    assert "ACCELERATE_USE_CPU" not in env


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("fp32", "no"), ("bf16", "no"), ("bf16-mixed", "bf16"), ("fp16-mixed", "fp16")],
)
def test_accelerate_mixes_only_where_the_spec_mixes(precision: str, expected: str) -> None:
    assert config(precision=precision)["mixed_precision"] == expected


@pytest.mark.parametrize(("sharding", "reshard"), [("full", True), ("grad-op", False)])
def test_accelerates_fsdp_settings_are_the_specs(sharding: str, reshard: bool) -> None:
    made = config(strategy="fsdp", sharding=sharding, offload_parameters=True)
    assert made["distributed_type"] == "FSDP"
    assert made["fsdp_config"]["fsdp_version"] == 2
    assert made["fsdp_config"]["fsdp_reshard_after_forward"] is reshard
    assert made["fsdp_config"]["fsdp_offload_params"] is True


def test_hybrid_sharding_replicates_over_nodes_and_shards_inside() -> None:
    mesh = config(strategy="fsdp", sharding="hybrid")["parallelism_config"]
    assert mesh == {
        "parallelism_config_dp_replicate_size": 2,
        "parallelism_config_dp_shard_size": 8,
    }


def test_accelerate_leaves_zeros_numbers_to_deepspeeds_own_file() -> None:
    made = config(strategy="zero", zero_stage=3, precision="bf16-mixed")
    assert made["distributed_type"] == "DEEPSPEED"
    assert made["deepspeed_config"]["deepspeed_multinode_launcher"] == "standard"
    assert "mixed_precision" not in made
    argv = words(Accelerate().render(facts(strategy="zero", zero_stage=3)).argv)
    assert "--deepspeed_config_file=${PTX_BUNDLE}/deepspeed.json" in argv


def test_deepspeed_is_started_on_each_node_without_ssh() -> None:
    launch = Deepspeed().render(facts())
    assert launch.files["hostfile"] == b"node0 slots=8\nnode1 slots=8\n"
    assert {"--no_ssh", "--no_local_rank", "--node_rank=${PTX_NODE_RANK}"} <= set(
        words(launch.argv)
    )
    assert "DS_ACCELERATOR" not in launch.env
    assert Deepspeed().render(facts(gpus_per_node=0)).env["DS_ACCELERATOR"] == "cpu"


def test_deepspeeds_batch_numbers_always_agree() -> None:
    made = deepspeed_config(
        facts(strategy="zero", zero_stage=2, micro_batch=3, accumulation=5, data_parallel_size=4)
    )
    assert made["train_batch_size"] == 60
    assert (
        made["train_micro_batch_size_per_gpu"] * made["gradient_accumulation_steps"] * 4
        == made["train_batch_size"]
    )


@pytest.mark.parametrize(
    ("precision", "bf16", "fp16"),
    [
        ("fp32", False, False),
        ("bf16", True, False),
        ("bf16-mixed", True, False),
        ("fp16-mixed", False, True),
    ],
)
def test_deepspeeds_precision_is_the_specs(precision: str, bf16: bool, fp16: bool) -> None:
    made = deepspeed_config(facts(strategy="zero", zero_stage=1, precision=precision))
    assert made.get("bf16", {}).get("enabled", False) is bf16
    assert made.get("fp16", {}).get("enabled", False) is fp16


def test_offload_goes_where_the_stage_can_take_it() -> None:
    both = {"offload_optimizer": True, "offload_parameters": True}
    third = deepspeed_config(facts(strategy="zero", zero_stage=3, **both))["zero_optimization"]
    assert (
        third["offload_param"]
        == third["offload_optimizer"]
        == {"device": "cpu", "pin_memory": True}
    )
    second = deepspeed_config(facts(strategy="zero", zero_stage=2, **both))["zero_optimization"]
    assert "offload_param" not in second
    on_cpu = deepspeed_config(facts(strategy="zero", zero_stage=3, gpus_per_node=0, **both))
    assert on_cpu["zero_optimization"]["offload_param"]["pin_memory"] is False


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_gradients_are_clipped_only_when_asked_for(stage: int) -> None:
    """Left out, DeepSpeed would clip at 1."""
    assert deepspeed_config(facts(strategy="zero", zero_stage=stage))["gradient_clipping"] == 0
    made = deepspeed_config(facts(strategy="zero", zero_stage=stage, clip_grad_norm=0.5))
    assert json.loads(json.dumps(made))["gradient_clipping"] == 0.5
