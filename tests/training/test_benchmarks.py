"""The training benchmarks run to their end here, and their figures are what they are said to be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.ptx import CHECKOUT

pytestmark = pytest.mark.slow

BENCHMARKS = CHECKOUT / "benchmarks"


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def bench(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *args],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )


def kept(done: subprocess.CompletedProcess[str], stem: Path) -> dict[str, Any]:
    """The figures; what was printed is in the other file."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert stem.with_suffix(".txt").read_text() in done.stdout
    figures: dict[str, Any] = json.loads(stem.with_suffix(".json").read_text())
    assert figures["machine"]["cores"] >= 1
    assert figures["machine"]["versions"]["torch"]
    return figures


def test_all_loops_train_the_same_and_are_compared_in_pairs(tmp_path: Path) -> None:
    stem = tmp_path / "training"
    short = ("--ranks", "2", "--steps", "3", "--warm-up", "1", "--dim", "32")
    found = kept(bench("training.py", "1", *short, "--save", str(stem)), stem)
    assert [one["peer"] for one in found["figures"]] == ["bare", "trainer", "fabric"]
    for one in found["figures"]:
        assert one["ranks"] == 2
        # Within a pair both train the same samples at the same steps; only rounding may differ.
        assert one["loss_difference"] < 1e-4
        assert one["ptx_tokens_per_s"] > 0
        assert one["ratio"] == pytest.approx(one["ptx_tokens_per_s"] / one["peer_tokens_per_s"])


def test_checkpoints_are_measured_beside_plain_writing_and_beside_dcp(tmp_path: Path) -> None:
    stem = tmp_path / "checkpoint"
    short = ("--dim", "32", "--layers", "1", "--steps", "1", "--folder", str(tmp_path))
    found = kept(bench("checkpoint.py", "2", *short, "--save", str(stem)), stem)
    assert len(found["rounds"]) == 2
    assert found["bytes"] > 100_000
    for one in found["rounds"]:
        assert all(seconds > 0 for seconds in one.values())
    assert found["ratios"].keys() >= {"save", "load", "stall", "dcp_stall"}


def test_every_part_of_the_gpu_benchmark_runs_with_a_tiny_llama(tmp_path: Path) -> None:
    stem = tmp_path / "gpu"
    done = bench("gpu.py", "--tiny", "--repeat", "1", "--save", str(stem))
    found = {(one["case"], one["contender"]): one for one in kept(done, stem)["figures"]}
    cases = ("tiny-full", "tiny-lora")
    assert set(found) == {(case, by) for case in cases for by in ("ptx", "trainer")}
    for case in cases:
        ptx, trainer = (found[case, by]["runs"][0] for by in ("ptx", "trainer"))
        assert ptx["loss"] == pytest.approx(trainer["loss"], abs=0.01)
        for counted in ("parameters", "trained_parameters", "flops_per_token"):
            assert ptx[counted] == trainer[counted] > 0
        assert len(ptx["step_seconds"]) == len(trainer["step_seconds"]) == 2
    for one in found.values():
        assert one["tokens_per_s"] > 0
        assert one["peak_memory_bytes"] > 1 << 20
        assert one["mfu"] is None  # no peak is known for a CPU
    assert found["tiny-lora", "ptx"]["runs"][0]["trained_parameters"] < (
        found["tiny-lora", "ptx"]["runs"][0]["parameters"] / 2
    )


def test_without_a_gpu_one_sentence_says_so() -> None:
    done = bench("gpu.py")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "needs a GPU" in line


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("shape", "parameters", "multiplied", "adapters"),
    [
        ("1b", 1_235_814_400, 1_235_814_400, 11_272_192),
        ("8b", 8_030_261_248, 7_504_924_672, 41_943_040),
    ],
)
def test_the_models_have_the_published_sizes_and_the_formulas_hold(
    shape: str, parameters: int, multiplied: int, adapters: int
) -> None:
    """Parameters as published; a tied table is multiplied with, an untied one only read."""
    import torch
    from peers.gpu_ptx import spec
    from peers.llama_case import SHAPES, Case
    from transformers import LlamaForCausalLM

    from orchestrator.training.flops import shape_of
    from orchestrator.training.language.adapters import add_adapter

    case = Case(shape, lora=True, micro_batch=1)
    sizes = SHAPES[shape]
    attention = 12 * sizes["num_hidden_layers"] * sizes["hidden_size"] * case.context
    with torch.device("meta"):
        model = LlamaForCausalLM(case.config())
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters
        whole = shape_of(model).flops_per_token(case.context)
        lora = spec(case).lora
        assert lora is not None
        adapted = add_adapter(model, lora)
    assert whole == 6 * multiplied + attention
    assert shape_of(adapted).flops_per_token(case.context) == (
        4 * multiplied + 6 * adapters + attention
    )


@pytest.mark.usefixtures("importable")
def test_packed_documents_fill_their_sequences_and_do_not_see_each_other() -> None:
    import torch
    from peers.documents import PackedDocuments

    from orchestrator.training.batch import IGNORED

    data = PackedDocuments(samples=8, context=2048, vocabulary=1000, seed=3)
    batch = data.take([5, 2])
    tokens, positions = batch.inputs["tokens"].flatten(), batch.inputs["positions"].flatten()
    bounds = batch.inputs["cu_seqlens"]
    assert (bounds[0], bounds[-1]) == (0, len(tokens))
    starts, ends = bounds[:-1].long(), bounds[1:].long()
    assert len(starts) > 4
    assert 2048 in ends  # no document goes on in the next sequence
    assert torch.equal(positions == 0, torch.zeros_like(tokens).index_fill(0, starts, 1).bool())
    assert batch.extras["longest"] == int((ends - starts).max()) == int(positions.max()) + 1
    targets = batch.targets.flatten()
    last = torch.zeros_like(tokens).index_fill(0, ends - 1, 1).bool()
    assert torch.equal(targets == IGNORED, last)
    assert torch.equal(targets[~last], tokens[1:][~last[:-1]])
    assert batch.weight == int((~last).sum())
    again = data.take([2]).inputs["tokens"]
    assert torch.equal(again, batch.inputs["tokens"][1:])


@pytest.mark.usefixtures("importable")
def test_the_interval_holds_the_median_and_narrows_with_more_values() -> None:
    from measure import median_interval

    few = [0.9, 1.0, 1.1, 1.2, 0.8]
    median, low, high = median_interval(few)
    assert low <= median == 1.0 <= high
    assert (low, high) != (median, median)
    _, low_of_many, high_of_many = median_interval(few * 20)
    assert high_of_many - low_of_many < high - low
    assert median_interval([2.0] * 5) == (2.0, 2.0, 2.0)


@pytest.mark.usefixtures("importable")
def test_a_ratio_is_of_one_pair_and_above_one_where_ptx_is_faster() -> None:
    from peers.task import Task
    from training import summary

    pairs = [
        {"ptx": {"seconds": 1.0, "loss": 2.0}, "other": {"seconds": 2.0, "loss": 2.0}},
        {"ptx": {"seconds": 8.0, "loss": 2.0}, "other": {"seconds": 8.0, "loss": 2.5}},
        {"ptx": {"seconds": 1.0, "loss": 2.0}, "other": {"seconds": 1.5, "loss": 2.0}},
    ]
    task = Task(steps=10, micro_batch=4, context=8)
    found = summary(2, task, "bare", pairs)
    assert found["ratios"] == [2.0, 1.0, 1.5]
    assert found["ratio"] == 1.5
    assert found["ptx_tokens_per_s"] == 10 * 4 * 8 * 2
    assert found["loss_difference"] == 0.5
