"""Whether two ways of spreading a model over ranks are the same training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.oracle import Series, train

STEPS = 20
COMMON = {
    "clip_grad_norm": 1.0,
    "optimizer": {"name": "adamw", "lr": 1e-2, "weight_decay": 0.1},
}


def case(
    samples: tuple[int, int], strategy: dict[str, Any], model: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """`samples`: micro batch and accumulation. `more["training"]` is added to COMMON."""
    micro_batch, accumulation = samples
    training = COMMON | {"micro_batch": micro_batch, "accumulation": accumulation}
    training |= more.pop("training", {})
    made = {"training": training, "strategy": strategy, "model": model, "steps": STEPS}
    return made | {"heldout": 20, "meta": True} | more


def trained(folder: Path, cases: dict[str, dict[str, Any]], *, world_size: int) -> Series:
    """As `oracle.train`; rank 0's weights are in `folder`, for `assert_same`."""
    named = {name: made | {"save": str(folder / name)} for name, made in cases.items()}
    return train(folder, named, world_size=world_size)


def assert_same(name: str, ours: Path, whole: str, reference: Path, series: Series) -> None:
    """To 1e-4: losses, gradient norms and held-out loss; to 1e-3 each tensor of the weights,
    relative to its own norm. Adam makes a step of lr out of rounding where a gradient is nil, as
    that of a key's bias is, and processors round differently."""
    found, expected = series[name], series[whole]
    assert len(found["losses"]) == STEPS
    for key in ("losses", "grad_norms"):
        assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-4), key
    assert found["heldout"] == pytest.approx(expected["heldout"], rel=1e-4)
    state, wanted = (torch.load(folder / of) for folder, of in ((ours, name), (reference, whole)))
    assert list(state) == list(wanted)
    for key, tensor in wanted.items():
        assert state[key].shape == tensor.shape
        assert (state[key] - tensor).norm() <= 1e-3 * tensor.norm(), key
