"""What training reports, where it goes, and what is counted for it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_llama import tiny_llama

from orchestrator.spec.policies import Logging
from orchestrator.training.errors import NotSupported
from orchestrator.training.flops import ModelShape, Peak, peak_by_name, peak_of, shape_of
from orchestrator.training.metrics import Metrics, MetricsWriter
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.process_group import Rank
from orchestrator.training.throughput import Utilisation

pytestmark = pytest.mark.slow

METRICS = Metrics(
    step=20,
    steps=800,
    epoch=0.5,
    loss=1.23456,
    lr=1e-3,
    grad_norm=0.5,
    tokens_per_s=12345.6,
    samples_per_s=96.45,
    memory_bytes=1 << 30,
    memory_reserved_bytes=None,
    data_share=0.01,
    samples_skipped=0,
    steps_skipped=0,
    eval_loss=None,
    mfu=None,
    mfu_reason="no peak is known for cpu",
    flops_per_token=6e6,
    flops_formula="6 N, N without embedding",
    peak_flops=None,
    peak_name=None,
)
MAIN = Rank(0, 1, 0, torch.device("cpu"))


def _plan(folder: Path, **logging: bool) -> TrainingPlan:
    return dataclasses.replace(
        load_plan({}, gpus=0),
        run_dir=folder / "run-x7",
        attempt=1,
        metrics_path=folder / "run-x7" / "attempts" / "001" / "metrics.jsonl",
        logging=Logging.model_validate(logging),
    )


def _write(plan: TrainingPlan) -> None:
    with MetricsWriter.of(plan, MAIN) as writer:
        assert writer is not None
        writer.write(METRICS)
        writer.write(dataclasses.replace(METRICS, step=40, loss=1.0, eval_loss=1.5))


def test_a_record_has_these_keys_in_this_order(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    _write(plan)
    assert plan.metrics_path is not None
    first, second = (json.loads(line) for line in plan.metrics_path.read_text().splitlines())
    assert list(first) == [
        *("v", "t", "step", "steps", "epoch", "loss", "lr", "grad_norm"),
        *("tokens_per_s", "samples_per_s", "memory_bytes", "memory_reserved_bytes"),
        *("data_share", "samples_skipped", "steps_skipped", "eval_loss"),
        *("mfu", "mfu_reason", "flops_per_token", "flops_formula", "peak_flops", "peak_name"),
        *("eval_accuracy", "train_accuracy", "checkpoint_stall", "start_step", "seconds"),
        *("slow_ranks", "rank_seconds_median", "rank_seconds_reason"),
        *("data_wait_longest", "data_read_median"),
    ]
    assert first["v"] == 1
    assert (first["eval_loss"], second["eval_loss"]) == (None, 1.5)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, "step 20/800 loss 1.2346 lr 1.0e-03 12,346 tokens/s"),
        ({"tokens_per_s": None}, "step 20/800 loss 1.2346 lr 1.0e-03 96 samples/s"),
        (
            {"mfu": 0.4567, "samples_skipped": 3, "eval_loss": 1.5},
            "step 20/800 loss 1.2346 lr 1.0e-03 12,346 tokens/s mfu 45.7% skipped 3 "
            "held-out 1.5000",
        ),
    ],
)
def test_the_printed_form_is_one_short_line(changed: dict[str, Any], line: str) -> None:
    assert dataclasses.replace(METRICS, **changed).line() == line


def test_tensorboard_gets_every_number_under_the_run_and_attempt(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _write(_plan(tmp_path, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run-x7" / "tensorboard" / "001"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (20, pytest.approx(1.23456)),
        (40, 1.0),
    ]
    assert [(e.step, e.value) for e in events.Scalars("eval_loss")] == [(40, 1.5)]
    assert "mfu" not in events.Tags()["scalars"]


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_offline_keeps_every_number_under_the_runs_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("PTX_RUN_ID", "run-x7")
    _write(_plan(tmp_path, wandb=True))
    records = _wandb_records(tmp_path / "run-x7")
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.run_id, run.project) == ("run-x7", "ptx")
    rows = [
        {item.nested_key[0] if item.nested_key else item.key: item.value_json for item in row}
        for row in (r.history.item for r in records if r.HasField("history"))
    ]
    assert [json.loads(row["loss"]) for row in rows] == [1.23456, 1.0]
    assert [row["_step"] for row in rows] == ["20", "40"]


def _wandb_records(folder: Path) -> list[Any]:
    """Of wandb's own file: a LevelDB log of protobuf records behind seven bytes."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its helper process writes on for a moment after a run has finished
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, position, records, parts = file.read_bytes(), 7, [], b""
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or a record's last part
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


@pytest.fixture
def fresh_wandb() -> Iterator[None]:
    """It keeps the settings of the first run in a process."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.mark.usefixtures("fresh_wandb")
def test_wandb_that_cannot_be_reached_is_one_warning_and_offline_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    _write(_plan(tmp_path, wandb=True))
    warnings = [line for line in capsys.readouterr().err.splitlines() if "Weights" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("Weights & Biases cannot be reached, so its files stay here")
    assert sum(record.HasField("history") for record in _wandb_records(tmp_path / "run-x7")) == 2


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_ends_every_rank_at_the_start(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "orchestrator.training.trackers.registry.find_spec",
        lambda name: None if name == package else real(name),
    )
    plan = _plan(tmp_path, **{package: True})
    for number in range(2):
        with pytest.raises(NotSupported, match=package) as caught:
            MetricsWriter.of(plan, Rank(number, 2, number, torch.device("cpu")))
        assert caught.value.hint == "pip install 'ptx[track]'"


def test_llamas_arithmetic_is_counted_by_the_papers_formula() -> None:
    model = tiny_llama(layers=3)
    everything = sum(parameter.numel() for parameter in model.parameters())
    table = 256 * 32
    assert shape_of(model) == ModelShape(everything - table, 0, 3, 32)
    expected = 6 * (everything - table) + 12 * 3 * 32 * 100
    assert shape_of(model).flops_per_token(100) == expected
    assert shape_of(tiny_llama(layers=3, tied=True)).trained == everything - table


def test_a_frozen_base_costs_four_and_its_adapter_six() -> None:
    from peft import LoraConfig, get_peft_model

    base = shape_of(tiny_llama())
    lora = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules="all-linear"))
    adapter = sum(p.numel() for p in lora.parameters() if p.requires_grad)
    shape = shape_of(lora)
    assert shape == ModelShape(adapter, base.trained, 4, 32)
    assert shape.flops_per_token(0) == 6 * adapter + 4 * base.trained
    assert "4 N_frozen" in shape.formula


def test_the_count_is_close_to_what_pytorch_counts_in_a_real_step() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model, time = tiny_llama(), 64
    model.set_attn_implementation("eager")  # whose products PyTorch's counter knows
    tokens = torch.zeros((1, time), dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, use_cache=False).logits.sum().backward()
    counted = shape_of(model).flops_per_token(time) * time
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize(
    ("name", "precision", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989.5e12),
        ("NVIDIA H100 80GB HBM3", "fp32", 67e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "bf16", 989.5e12),
        ("NVIDIA B200", "bf16", 2250e12),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("Tesla V100-SXM2-16GB", "fp16-mixed", 125e12),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16", None),
        ("NVIDIA Imaginary 9000", "bf16", None),
    ],
)
def test_peaks_are_those_of_the_device_and_the_precision(
    name: str, precision: str, flops: float | None
) -> None:
    peak = peak_by_name(name, precision)
    assert peak.flops == flops
    if flops is None:
        assert peak.reason == f"no peak is known for {name}"
    else:
        assert peak.name is not None
        assert peak.name.startswith(name)


def test_utilisation_is_the_share_of_all_devices_or_says_why_not() -> None:
    shape, peak = ModelShape(1000, 0), Peak(1e6, "made up")
    assert Utilisation(shape, 8, peak, 4).at(200.0) == pytest.approx(200 * 6000 / 4e6)
    for utilisation, reason in (
        (Utilisation(shape, None, peak, 4), "samples are not made of tokens"),
        (Utilisation(None, 8, peak, 4), "nobody has counted"),
        (Utilisation(shape, 8, peak_of(torch.device("cpu"), "fp32"), 4), "no peak is known"),
    ):
        assert utilisation.at(200.0) is None
        assert utilisation.reason is not None
        assert utilisation.reason.startswith(reason)


def test_what_is_not_finite_is_null_since_json_has_no_infinity(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as writer:
        writer.write(dataclasses.replace(METRICS, grad_norm=math.inf, eval_loss=math.nan))
    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (record["grad_norm"], record["eval_loss"]) == (None, None)


def test_a_full_disk_is_said_once_and_ends_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        own, writer._file = writer._file, full
        for _ in range(2):
            writer.write(METRICS)
    assert own is not None
    os.close(own)
    printed = capsys.readouterr()
    assert printed.err.count("No space left on device") == 1
    assert printed.out.count("step ") == 2
