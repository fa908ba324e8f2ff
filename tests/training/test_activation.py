"""Recomputing activations changes memory and time, and nothing else."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from support.tiny_llama import tiny_llama
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.spec.training import Training
from orchestrator.training.engines.layers import layers_of
from orchestrator.training.engines.prepare import prepare_layers
from orchestrator.training.errors import NotSupported
from orchestrator.training.language.next_token import NextToken

pytestmark = pytest.mark.slow

MODES = ("none", "every-n", "selective", "full")
TOKENS = torch.arange(64).reshape(2, 32)


class Work(TorchDispatchMode):
    """Counts operators, and the bytes of their results that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}
        self._made: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.calls[name] = self.calls.get(name, 0) + 1
        for tensor in found if isinstance(found, list | tuple) else (found,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._made[storage.data_ptr()] = (weakref.ref(storage), storage.nbytes())
        return found

    @property
    def bytes(self) -> int:
        return sum(size for made, size in self._made.values() if made() is not None)


class Step:
    """One forward and backward pass of a small Llama."""

    def __init__(self, mode: str, *, dropout: float = 0.0, every: int = 2) -> None:
        self.objective = NextToken(tiny_llama())
        for layer in layers_of(self.objective):
            layer.self_attn.attention_dropout = dropout
        names = list(self.objective.state_dict())
        settings = {"activation_checkpointing": {"mode": mode, "every": every}}
        prepare_layers(self.objective, Training.model_validate(settings))
        assert list(self.objective.state_dict()) == names
        self.runs: dict[int, int] = {}
        for number, layer in enumerate(layers_of(self.objective)):
            layer.mlp.register_forward_pre_hook(lambda *_, n=number: self._ran(n))
        torch.manual_seed(3)
        forward, backward = Work(), Work()
        with forward:
            self.loss, _ = self.objective({"tokens": TOKENS}, TOKENS, {})
        self.kept = forward.bytes
        with backward:
            self.loss.backward()
        self.again = backward.calls
        self.gradients = {n: p.grad for n, p in self.objective.named_parameters()}

    def _ran(self, layer: int) -> None:
        self.runs[layer] = self.runs.get(layer, 0) + 1


@pytest.fixture(scope="module")
def steps() -> dict[str, Step]:
    return {mode: Step(mode) for mode in MODES}


@pytest.mark.parametrize("mode", MODES[1:])
def test_loss_and_gradients_are_those_without(steps: dict[str, Step], mode: str) -> None:
    assert steps[mode].loss.item() == steps["none"].loss.item()
    for name, gradient in steps["none"].gradients.items():
        torch.testing.assert_close(steps[mode].gradients[name], gradient, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_dropout_is_drawn_again_as_it_was(mode: str) -> None:
    plain, recomputed = Step("none", dropout=0.5), Step(mode, dropout=0.5)
    assert plain.loss.item() != Step("none").loss.item()
    for name, gradient in plain.gradients.items():
        torch.testing.assert_close(recomputed.gradients[name], gradient, atol=1e-5, rtol=0)


def test_layers_really_run_again(steps: dict[str, Step]) -> None:
    assert steps["none"].runs == {0: 1, 1: 1, 2: 1, 3: 1}
    assert steps["full"].runs == {0: 2, 1: 2, 2: 2, 3: 2}
    assert steps["every-n"].runs == {0: 1, 1: 2, 2: 1, 3: 2}
    assert Step("every-n", every=3).runs == {0: 1, 1: 1, 2: 2, 3: 1}


def test_selective_runs_everything_again_but_matrix_products_and_attention(
    steps: dict[str, Step],
) -> None:
    none, selective, full = (steps[mode].again for mode in ("none", "selective", "full"))
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    for kept in ("mm", attention):
        assert selective.get(kept, 0) == none.get(kept, 0) < full[kept]
    assert none.get("silu", 0) < selective["silu"] == full["silu"]


def test_the_more_is_recomputed_the_less_is_kept(steps: dict[str, Step]) -> None:
    kept = [steps[mode].kept for mode in ("full", "selective", "none")]
    assert kept == sorted(set(kept))
    assert kept[0] < kept[2] / 2
    assert steps["full"].kept < steps["every-n"].kept < steps["none"].kept


def test_in_evaluation_nothing_is_recomputed_and_the_loss_is_the_same() -> None:
    step = Step("full")
    with torch.no_grad():
        loss, _ = step.objective({"tokens": TOKENS}, TOKENS, {})
    assert loss.item() == step.loss.item()
    assert step.runs[0] == 3


def test_a_model_without_layers_is_refused() -> None:
    settings = Training.model_validate({"activation_checkpointing": {"mode": "full"}})
    with pytest.raises(NotSupported, match="no repeated layers"):
        prepare_layers(nn.Linear(2, 2), settings)
