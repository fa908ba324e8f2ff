"""Compiled and recomputed layers train as plain ones do, under DDP and FSDP in real ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.oracle import Series, train
from support.training_ranks import CHECKOUT

pytestmark = pytest.mark.slow

STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"name": "ddp"},
    "fsdp": {"name": "fsdp", "sharding": "full"},
}
PREPARED: dict[str, dict[str, Any]] = {
    "plain": {},
    "full": {"activation_checkpointing": {"mode": "full"}},
    "selective": {"activation_checkpointing": {"mode": "selective"}},
    "every-n": {"activation_checkpointing": {"mode": "every-n", "every": 2}},
    "compiled": {"compile": True},
}
COMMON = {"micro_batch": 2, "clip_grad_norm": 1.0, "optimizer": {"lr": 1e-2}}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    cases = {
        f"{strategy} {prepared}": {
            "training": COMMON | settings,
            "strategy": STRATEGIES[strategy],
            "steps": 4,
        }
        for strategy in STRATEGIES
        for prepared, settings in PREPARED.items()
    }
    return train(tmp_path_factory.mktemp("ranks"), cases, world_size=2)


@pytest.mark.parametrize("prepared", list(PREPARED)[1:])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_training_is_the_same(series: Series, strategy: str, prepared: str) -> None:
    plain, other = series[f"{strategy} plain"], series[f"{strategy} {prepared}"]
    assert other["losses"] == pytest.approx(plain["losses"], abs=1e-5)
    assert other["grad_norms"] == pytest.approx(plain["grad_norms"], abs=1e-5)
    assert other["weights"] == pytest.approx(plain["weights"], rel=1e-5)
    assert plain["losses"][-1] < plain["losses"][0]


def test_compiled_layers_are_really_compiled(series: Series) -> None:
    """Fused kernels round differently somewhere, or nothing was compiled."""
    for strategy in STRATEGIES:
        assert series[f"{strategy} compiled"] != series[f"{strategy} plain"]


def test_without_a_compiler_one_sentence_says_so(tmp_path: Path) -> None:
    program = (
        "from torch import nn\n"
        "from orchestrator.spec.training import Training\n"
        "from orchestrator.training.engines.prepare import prepare_layers\n"
        "from orchestrator.training.entrypoint import run\n"
        "run(lambda _: prepare_layers(nn.Linear(2, 2), Training(compile=True)))\n"
    )
    kept = {key: value for key, value in os.environ.items() if key not in ("CXX", "PATH")}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=kept | {"PYTHONPATH": str(CHECKOUT), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("not-supported: training.compile is on and no C++ compiler")
    assert len(ended.stderr.splitlines()) == 1
