"""A loss computed in chunks is the plain loss, with its gradients, in less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.tiny_llama import tiny_llama
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from orchestrator.training.batch import IGNORED
from orchestrator.training.language.linear_loss import linear_cross_entropy
from orchestrator.training.language.next_token import NextToken, has_plain_head

pytestmark = pytest.mark.slow

BATCH, TIME, DIM, VOCABULARY = 3, 11, 8, 40


def problem(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(BATCH, TIME, DIM, dtype=dtype, requires_grad=True)
    head = nn.Linear(DIM, VOCABULARY, bias=False, dtype=dtype)
    targets = torch.randint(VOCABULARY, (BATCH, TIME))
    targets[0, :4] = targets[2] = IGNORED
    return hidden, head, targets


class Wrapped(nn.Module):
    """A head that is more than its weight, as an adapter's is."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("positions", [1, 2, 4, 5, 100])
@pytest.mark.parametrize("frozen", [False, True])
def test_loss_and_gradients_are_those_of_the_whole_logits(
    positions: int, wrapped: bool, frozen: bool
) -> None:
    hidden, head, targets = problem()
    head.requires_grad_(not frozen)
    wanted = [hidden] if frozen else [hidden, head.weight]
    plain = F.cross_entropy(
        head(hidden).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    chunked = linear_cross_entropy(
        hidden,
        Wrapped(head) if wrapped else head,
        targets,
        vocabulary=VOCABULARY,
        at_once=positions * BATCH * VOCABULARY,
    )
    torch.testing.assert_close(chunked, plain, rtol=1e-6, atol=1e-6)
    scale = 0.37  # as the engine's: gradients of a sum over targets, divided by their number
    for found, expected in zip(
        torch.autograd.grad(chunked * scale, wanted),
        torch.autograd.grad(plain * scale, wanted),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_in_bfloat16_it_is_as_close_to_float32_as_the_plain_loss(
    wrapped: bool, mixed: bool
) -> None:
    """`mixed`: float32 tensors under autocast; else everything is kept in bfloat16."""
    exact, exact_head, targets = problem()
    reference = linear_cross_entropy(exact, exact_head, targets, vocabulary=VOCABULARY)
    (expected,) = torch.autograd.grad(reference, [exact_head.weight])
    hidden, head, _ = problem()
    if not mixed:
        head = head.bfloat16()
        hidden = hidden.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        loss = linear_cross_entropy(
            hidden,
            Wrapped(head) if wrapped else head,
            targets,
            vocabulary=VOCABULARY,
            at_once=2 * BATCH * VOCABULARY,
        )
    grads = torch.autograd.grad(loss, [hidden, head.weight])
    assert loss.dtype == torch.float32
    assert [g.dtype for g in grads] == [hidden.dtype, head.weight.dtype]
    torch.testing.assert_close(loss, reference, rtol=1e-2, atol=0)
    torch.testing.assert_close(grads[1].float(), expected, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize(("wrapped", "products"), [(False, 3), (True, 4)])
def test_a_plain_output_layer_computes_no_logit_twice(wrapped: bool, products: int) -> None:
    """Logits, the gradient of the hidden states and that of the weight are a product each."""
    hidden, head, targets = problem()
    with FlopCounterMode(display=False) as counter:
        loss = linear_cross_entropy(
            hidden,
            Wrapped(head) if wrapped else head,
            targets,
            vocabulary=VOCABULARY,
            at_once=2 * BATCH * VOCABULARY,
        )
        loss.backward()
    assert counter.get_total_flops() == products * 2 * BATCH * TIME * DIM * VOCABULARY


def test_without_gradients_nothing_is_kept_for_them() -> None:
    hidden, head, targets = problem()
    with torch.no_grad():
        loss = linear_cross_entropy(
            hidden, head, targets, vocabulary=VOCABULARY, at_once=2 * BATCH * VOCABULARY
        )
    assert loss.grad_fn is None
    whole = linear_cross_entropy(hidden, head, targets, vocabulary=VOCABULARY)
    torch.testing.assert_close(loss, whole)


def largest_saved(objective: NextToken, batch: tuple[torch.Tensor, torch.Tensor]) -> int:
    """Elements of the largest tensor that a forward pass keeps for its backward pass."""
    sizes = [0]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = objective({"tokens": batch[0]}, batch[1], {})
    loss.backward()
    return max(sizes)


def lora(model: nn.Module) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False, lora_dropout=0.0
    )
    torch.manual_seed(1)
    return get_peft_model(model, config)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["untied", "tied", "adapter on the head"])
def test_a_llama_trained_in_chunks_has_the_same_gradients_and_keeps_no_logits(kind: str) -> None:
    tokens = torch.randint(256, (2, 65), generator=torch.Generator().manual_seed(0))
    batch = tokens[:, :-1], tokens[:, 1:].clone()
    batch[1][0, 3:9] = IGNORED
    found: dict[int, tuple[int, dict[str, Any]]] = {}
    for at_once in (1 << 28, 4096):
        model: nn.Module = tiny_llama(tied=kind == "tied", layers=1)
        objective = NextToken(lora(model) if kind.startswith("adapter") else model)
        objective.logits_at_once = at_once
        saved = largest_saved(objective, batch)
        grads = {name: p.grad for name, p in objective.named_parameters() if p.requires_grad}
        found[at_once] = saved, grads
    (plain, expected), (chunked, grads) = found[1 << 28], found[4096]
    torch.testing.assert_close(grads, expected, rtol=1e-5, atol=1e-6)
    assert plain >= 2 * 64 * 256
    assert chunked < 2 * 64 * 256


def test_models_that_scale_or_cap_their_logits_compute_them_themselves() -> None:
    from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, Qwen3Config

    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    tokens = torch.randint(64, (1, 33), generator=torch.Generator().manual_seed(0))
    kinds: dict[Any, dict[str, Any]] = {
        Gemma2Config: {"final_logit_softcapping": 0.1, "attn_implementation": "eager"},
        GraniteConfig: {"logits_scaling": 7.0},
        Qwen3Config: {},
    }
    for kind, options in kinds.items():
        config = kind(**sizes, **options)
        config.initializer_range = 1.0
        model = AutoModelForCausalLM.from_config(config)
        objective = NextToken(model)
        plain, _ = objective({"tokens": tokens[:, :-1]}, tokens[:, 1:], {}, want_logits=True)
        objective.logits_at_once = 128
        chunked, _ = objective({"tokens": tokens[:, :-1]}, tokens[:, 1:], {})
        torch.testing.assert_close(chunked, plain)
        assert has_plain_head(model) == (kind is Qwen3Config)


def test_in_chunks_a_sharded_or_cut_output_layer_trains_as_with_whole_logits(
    tmp_path: Path,
) -> None:
    from support.oracle import train

    half: dict[str, Any] = {"micro_batch": 2, "clip_grad_norm": 1.0}
    chunks = {"kind": "llama", "layers": 1, "tied": True, "logits_at_once": 2048}
    whole = {"kind": "llama", "layers": 1, "tied": True}
    cases: dict[str, dict[str, Any]] = {
        "whole": {"training": half, "model": whole},
        "fsdp": {"training": half, "model": chunks, "strategy": {"name": "fsdp"}},
        "tensor": {
            "training": half | {"micro_batch": 4},
            "model": chunks,
            "strategy": {"name": "ddp", "tensor_parallel": 2, "sequence_parallel": True},
        },
    }
    series = train(
        tmp_path, {name: case | {"steps": 3} for name, case in cases.items()}, world_size=2
    )
    for name in cases:
        for what in ("losses", "grad_norms", "weights"):
            assert series[name][what] == pytest.approx(series["whole"][what], rel=1e-5), name
