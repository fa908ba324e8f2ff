"""Cross-field checks that the corpus of bad specs cannot show: warnings, targets, places."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.checks import CHECKS, check_target
from orchestrator.spec.diagnostics import SpecError
from orchestrator.spec.fields import spec_fields
from orchestrator.spec.job import JobSpec
from orchestrator.spec.loader import load

HEAD = "name: a\nentrypoint: {module: train}\n"


def spec_of(**sections: object) -> JobSpec:
    return JobSpec.model_validate({"name": "a", "entrypoint": {"module": "m"}, **sections})


def test_every_check_reads_paths_that_exist() -> None:
    known = {".".join(path) for path in spec_fields()}
    assert {read for check in CHECKS for read in check.reads} <= known
    assert len({check.function for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ("rendezvous: {port: 40000}\n", (3, 20), "risky-port"),
        ("resources: {gpus_per_node: 8, cpus_per_task: 4}\n", (3, 46), "conflict"),
        ("scheduler: slurm\nresources: {gpus_per_node: 8}\n", (4, 12), "conflict"),
        (
            "resources: {procs_per_node: 2, gpus_per_node: 0}\n"
            "strategy: {name: ddp, pipeline_parallel: 2}\n"
            "training: {accumulation: 1}\n",
            (5, 26),
            "conflict",
        ),
    ],
)
def test_what_may_go_well_is_a_warning(
    text: str, place: tuple[int, int], code: str, tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(HEAD + text)
    [warning] = load(path).warnings
    assert (warning.line, warning.column) == place
    assert warning.code == code
    assert f": warning[{code}]: " in warning.text()


@pytest.mark.parametrize(
    "text",
    [
        "slurm: {gpu_flag: none, options: {gres: 'gpu:4'}}\n",
        "slurm: {gpu_flag: gpus-per-node, options: {gres: 'nvme:100'}}\n",
        "slurm: {memory_flag: none, options: {mem: 64G}}\n",
        "slurm: {options: {mail-type: END, requeue: true, nice: 100}}\n",
        "launcher: {name: accelerate, args: [--debug]}\nstrategy: fsdp\n",
        "launcher: {name: torchrun, args: [--tee, '3']}\n",
        "resources: {gpus_per_node: 0, procs_per_node: 2}\ntraining: {global_batch: 16}\n",
        "resources: {gpus_per_node: 4, procs_per_node: 4}\n",
        "resources: {gpus_per_node: auto, procs_per_node: 2}\ntraining: {global_batch: 999}\n",
        "rendezvous: {port: 0}\n",
        "resources: {gpus_per_node: 4}\nstrategy: {name: fsdp, tensor_parallel: 2, "
        "sequence_parallel: true, pipeline_parallel: 2}\ntraining: {accumulation: 8}\n",
        "resources: {gpus_per_node: 4}\nstrategy: {name: ddp, pipeline_parallel: 2}\n"
        "training: {accumulation: 2, lora: {rank: 8}, precision: fp16-mixed}\n",
        "resources: {gpus_per_node: 4}\ntraining: {optimizer: {name: adamw-8bit}, "
        "lora: {quantize: 4bit}}\n",
        "training: {schedule: {name: exponential, final_ratio: 0.1}}\n",
        "scheduler: slurm\nresources: {gpus_per_node: 0, nodes: 4, time_limit: 3m}\n",
    ],
)
def test_what_is_right_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(HEAD + text)
    assert load(path).warnings == ()


def test_a_script_that_cannot_even_be_looked_at_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"name: a\nentrypoint: {{script: {'s' * 300}/train.py}}\n")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["script-missing"]


def test_a_script_beside_the_person_and_not_the_spec_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "specs").mkdir()
    path = tmp_path / "specs" / "job.yaml"
    path.write_text("name: a\nentrypoint: {script: train.py}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        load(Path("specs/job.yaml"))
    assert caught.value.diagnostics[0].file == "specs/job.yaml"
    assert f"it is in {tmp_path}; paths in a spec count from" in caught.value.text()


def test_a_broken_section_silences_the_checks_that_read_it_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        HEAD
        + "scheduler: slurm\n"
        + "resources: {nodes: two, gpu_per_node: 8}\n"  # so neither auto nor the batch is judged
        + "training: {global_batch: 7}\n"
        + "rendezvous: {port: 80}\n"
    )
    with pytest.raises(SpecError) as caught:
        load(path)
    assert [(one.line, one.code) for one in caught.value.diagnostics] == [
        (4, "wrong-type"),
        (4, "unknown-key"),
        (6, "bad-value"),
    ]


@pytest.mark.parametrize(
    ("resources", "gpus", "cpus", "codes"),
    [
        ({"gpus_per_node": 4}, 2, 8, ["too-few-gpus"]),
        ({"gpus_per_node": 4}, 0, 8, ["too-few-gpus"]),
        ({"gpus_per_node": 4}, 4, 8, []),
        ({"procs_per_node": 2}, 0, 1, []),
        ({"procs_per_node": 200}, 0, 2, ["too-few-cores"]),
        ({"procs_per_node": 200}, 1, 2, []),
        ({"gpus_per_node": 0, "procs_per_node": 200}, 1, 2, ["too-few-cores"]),
    ],
)
def test_a_local_spec_is_held_against_this_machine(
    resources: dict[str, object], gpus: int, cpus: int, codes: list[str]
) -> None:
    findings = check_target(spec_of(resources=resources), gpus, cpus)
    assert [finding.code for finding in findings] == codes
    for path, message, help_, *_ in findings:
        assert path[0] == "resources"
        assert message
        assert help_


def test_auto_gpus_are_counted_for_batch_and_groups() -> None:
    spec = spec_of(training={"micro_batch": 4, "global_batch": 16}, strategy={"name": "fsdp"})
    assert check_target(spec, 4, 8) == []
    assert [finding.path for finding in check_target(spec, 3, 8)] == [("training", "global_batch")]
    split = spec_of(strategy={"name": "fsdp", "tensor_parallel": 2})
    assert [finding.path for finding in check_target(split, 3, 8)] == [
        ("strategy", "tensor_parallel")
    ]
    assert check_target(spec_of(scheduler="slurm", resources={"gpus_per_node": 8}), 0, 1) == []


def test_a_metric_that_no_checkpoint_can_be_the_best_by_is_shown_in_its_place(
    tmp_path: Path,
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(HEAD + "checkpoint:\n  best: eval_los\n")
    with pytest.raises(SpecError) as wrong:
        load(path)
    [error] = wrong.value.diagnostics
    assert (error.line, error.column) == (4, 9)
    assert "eval_loss" in error.text() and "train_accuracy" in error.text()
