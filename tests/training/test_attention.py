"""Packed documents are computed as if each were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.tiny_llama import tiny_llama

from orchestrator.training.errors import NotSupported
from orchestrator.training.language.attention import (
    VARLEN,
    attention_for,
    keeps_documents_apart,
    model_inputs,
    register_varlen,
    varlen_forward,
    varlen_reference,
)

pytestmark = pytest.mark.slow

LENGTHS = [[5, 1, 9, 3], [2, 16], [18]]
"""Of the documents in each row of 18 tokens."""


def packed(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    tokens = torch.randint(256, (3, 18), generator=torch.Generator().manual_seed(seed))
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in LENGTHS])
    flat = [n for row in LENGTHS for n in row]
    bounds = F.pad(torch.tensor(flat).cumsum(0), (1, 0)).int()
    return {"tokens": tokens, "positions": positions, "cu_seqlens": bounds}, {"longest": max(flat)}


def logits_of(implementation: str, inputs: dict[str, torch.Tensor], longest: int) -> torch.Tensor:
    register_varlen()
    model = tiny_llama(layers=2)
    model.set_attn_implementation(implementation)
    arguments = model_inputs(inputs, {"longest": longest}, implementation)
    with torch.no_grad():
        return model(input_ids=inputs["tokens"], use_cache=False, **arguments).logits


@pytest.fixture(params=["sdpa", "eager", VARLEN])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_logits_of_packed_documents_are_those_of_each_alone(implementation: str) -> None:
    inputs, extras = packed()
    together = logits_of(implementation, inputs, extras["longest"])
    for row, lengths in enumerate(LENGTHS):
        first = 0
        for length in lengths:
            alone = {"tokens": inputs["tokens"][row : row + 1, first : first + length]}
            expected = logits_of("eager", alone, length)
            torch.testing.assert_close(together[row : row + 1, first : first + length], expected)
            first += length


def test_a_document_does_not_see_another(implementation: str) -> None:
    inputs, extras = packed()
    before = logits_of(implementation, inputs, extras["longest"])
    changed = inputs | {"tokens": inputs["tokens"].clone()}
    changed["tokens"][0, 6:15] += 1  # the third document of the first row
    changed["tokens"] %= 256
    after = logits_of(implementation, changed, extras["longest"])
    differs = (after != before).any(-1)
    assert differs[0].tolist() == [False] * 6 + [True] * 9 + [False] * 3
    assert not differs[1:].any()


def qkv(*lengths: int, heads: int = 4, groups: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    total = sum(lengths)
    shapes = [(total, heads, 8), (total, groups, 8), (total, groups, 8)]
    return tuple(torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_the_reference_is_sdpa_under_a_block_diagonal_mask(window: int | None) -> None:
    lengths = torch.tensor([4, 1, 7])
    q, k, v = qkv(*lengths.tolist())
    bounds = F.pad(lengths.cumsum(0), (1, 0)).int()
    size = (-1 if window is None else window - 1, 0)
    found = varlen_reference(
        q, k, v, bounds, bounds, 7, 7, window_size=size, enable_gqa=True, scale=0.3
    )
    document = torch.arange(3).repeat_interleave(lengths)
    place = torch.arange(12)
    distance = place.unsqueeze(1) - place
    mask = (document.unsqueeze(1) == document) & (distance >= 0)
    if window is not None:
        mask &= distance < window
    heads_first = (x.transpose(0, 1) for x in (q, k, v))
    expected = F.scaled_dot_product_attention(
        *heads_first, attn_mask=mask, scale=0.3, enable_gqa=True
    ).transpose(0, 1)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), (q, k, v)),
        torch.autograd.grad((expected * weights).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_cached_decoding_sees_all_earlier_keys() -> None:
    """The last two of five tokens, as a model with a key-value cache asks for them."""
    q, k, v = (x.view(2, 5, -1, 8).transpose(1, 2) for x in qkv(10))
    whole, _ = varlen_forward(torch.nn.Module(), q, k, v, None)
    last, _ = varlen_forward(torch.nn.Module(), q[:, :, 3:], k, v, None)
    torch.testing.assert_close(last, whole[:, 3:])


def test_under_autocast_queries_and_keys_take_the_values_dtype() -> None:
    q, k, v = (x.view(1, 6, -1, 8).transpose(1, 2) for x in qkv(6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = varlen_forward(torch.nn.Module(), q, k, v.bfloat16(), None)
    assert mixed.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["softcap", "s_aux", "dropout"])
def test_what_flash_attention_would_leave_out_is_refused(name: str) -> None:
    q, k, v = (x.view(1, 6, -1, 8).transpose(1, 2) for x in qkv(6))
    options: dict[str, Any] = {name: 0.5}
    with pytest.raises(NotSupported, match=name):
        varlen_forward(torch.nn.Module(), q, k, v, None, **options)


def test_on_cpu_transformers_own_masks_are_used() -> None:
    for packed_ in (True, False):
        assert attention_for(torch.device("cpu"), torch.bfloat16, packed_) == "sdpa"


def tiny(kind: str) -> Any:
    """A configuration of that type; what it does not know it keeps and does not read."""
    from transformers import AutoConfig

    plain = type(AutoConfig.for_model(kind))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
    more = {"num_key_value_heads": 2, "intermediate_size": 48, "ffn_dim": 48, "vocab_size": 64}
    older = {"n_positions": 32, "rotary_dim": 4, "word_embed_proj_dim": 32, "pad_token_id": 0}
    return plain(**sizes, **more, **older, max_position_embeddings=32)


@pytest.mark.parametrize(
    "kind",
    [
        *("bitnet", "codegen", "gemma", "gemma2", "gpt2", "gpt_neox", "gptj", "granite", "llama"),
        *("mistral", "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm"),
        *("biogpt", "bloom", "opt"),
    ],
)
def test_models_that_are_said_to_keep_documents_apart_do_and_others_do_not(kind: str) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = tiny(kind)
    implementation = attention_for(torch.device("cpu"), torch.float32, True, config)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation=implementation).eval()
    tokens = torch.randint(3, 60, (1, 12))
    positions = torch.tensor([[*range(5), *range(7)]])
    with torch.no_grad():
        together = model(input_ids=tokens, position_ids=positions, use_cache=False).logits[:, 5:]
        alone = model(input_ids=tokens[:, 5:], use_cache=False).logits
    apart = torch.allclose(together, alone, atol=1e-5)
    assert apart == keeps_documents_apart(config)


def test_layers_that_hand_on_a_state_do_not_keep_documents_apart() -> None:
    config = tiny("lfm2")
    config.layer_types = ["full_attention", "conv"]
    assert not keeps_documents_apart(config)
