"""Attention that stays inside each document of a packed sequence."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from orchestrator.training.errors import NotSupported

VARLEN = "ptx_varlen"
"""Name of this file's attention among transformers' attention implementations."""

_FAMILIES = (
    *("arcee", "exaone4", "ernie4_5", "gemma", "glm", "glm4", "glm4_moe", "gpt_neox", "helium"),
    *("llama", "ministral", "ministral3", "mistral", "mixtral", "nemotron", "olmo", "olmo2"),
    *("olmo3", "olmoe", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    *("seed_oss", "smollm3", "stablelm", "starcoder2"),
)
"""Their attention is a softmax over scaled products, inside an optional window, and no more."""

_APART = (
    *_FAMILIES,
    *("apertus", "bitnet", "codegen", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "doge"),
    *("ernie4_5_moe", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "granite"),
    *("granitemoe", "hunyuan_v1_dense", "jetmoe", "lfm2", "persimmon"),
)
"""Model types seen to give the logits of each document alone when several are packed. Others take
positions and make no mask of them (OPT, BLOOM), or hand a state from token to token (Mamba)."""

_MASKED_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}

_CHANGES = ("softcap", "s_aux", "position_bias")
"""What models of other families hand to their attention beside the plain arguments."""


def attention_for(
    device: torch.device,
    dtype: torch.dtype,
    packed: bool,
    config: Any = None,
) -> str:
    """What to give a transformers model as `attn_implementation`. Call it before the model is made.

    `dtype` is that of the arithmetic (bfloat16 under bf16-mixed). On GPUs from Ampere on, with 16
    bits and a model whose attention is the plain one, `VARLEN`: flash attention over documents of
    any length (Dao 2023), no mask in memory and no host sync in making one. Elsewhere
    `masked_attention`: transformers makes a block-diagonal mask of a `packed` batch's positions.
    """
    flash = (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )
    if not flash or not (config is None or _plain(config)):
        return masked_attention(config)
    if packed or config is not None:
        register_varlen()
        return VARLEN
    return "sdpa"


def masked_attention(config: Any = None) -> str:
    """transformers' name of the fastest attention that takes a mask and that the model has: "sdpa",
    or "eager" where its own forward does what SDPA cannot (Gemma 2 caps its logits)."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kind: Any = None if config is None else MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "sdpa" if kind is None or kind._supports_sdpa else "eager"


def keeps_documents_apart(config: Any) -> bool:
    """Whether a transformers model with this configuration can be given packed documents: each
    then attends to itself alone, and no state goes from one to the next."""
    layers = set(getattr(config, "layer_types", None) or ())
    return config.model_type in _APART and layers <= _MASKED_LAYERS


def register_varlen() -> None:
    """Make `VARLEN` known to transformers; twice is once.

    No mask function goes with it, so transformers makes no mask, and what it would read back from
    the GPU to decide about one is not read.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, varlen_forward)


def model_inputs(
    inputs: Mapping[str, torch.Tensor], extras: Mapping[str, int], implementation: str
) -> dict[str, Any]:
    """Keyword arguments of a transformers model or decoder that keep documents apart.

    inputs["positions"]: int64 (batch, time); inputs["cu_seqlens"]: int32 (documents + 1,), the
    bounds of the documents in the batch laid out as one row, beginning with 0 and ending with
    batch x time; extras["longest"]: tokens of the longest document. All may be absent.
    """
    found: dict[str, Any] = {}
    if "positions" in inputs:
        found["position_ids"] = inputs["positions"]
    if "cu_seqlens" in inputs and (implementation == VARLEN or "flash" in implementation):
        bounds, longest = inputs["cu_seqlens"], extras["longest"]
        found |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
        found |= {"max_length_q": longest, "max_length_k": longest}
    return found


def varlen_forward(
    module: torch.nn.Module,  # noqa: ARG001 - part of the interface, like the mask
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention in each document, as transformers' AttentionInterface calls it.

    query: (batch, heads, time, head_dim); key and value may have fewer heads (grouped queries).
    Returns (batch, time, heads, head_dim). Without `cu_seq_lens_q` each row is one document; there
    keys may be more than queries, which are then the last ones. Padding masks are not applied.
    Raises NotSupported for what would change the result and is not done here.
    """
    changes = [name for name in _CHANGES if others.get(name) is not None]
    if dropout or changes:
        raise NotSupported(
            f"the attention {VARLEN} has no {' and no '.join(changes or ['dropout'])}, which this "
            "model asks for",
            hint="build the model with attn_implementation: sdpa or eager",
        )
    batch, heads, time, _ = query.shape
    bounds, longest = cu_seq_lens_q, max_length_q
    if bounds is None or longest is None:
        bounds, longest = _rows(batch, time, query.device), time
        keys, longest_key = _rows(batch, key.shape[2], key.device), key.shape[2]
    else:
        keys, longest_key = bounds, longest
    q, k, v = _one_row(query, key, value)
    attend = _flash if q.is_cuda and q.dtype != torch.float32 else varlen_reference
    mixed = attend(
        q,
        k,
        v,
        bounds,
        keys,
        longest,
        longest_key,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        enable_gqa=heads != key.shape[1],
    )
    return mixed.view(batch, time, heads, -1), None


def varlen_reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,  # noqa: ARG001 - as in torch.nn.attention.varlen.varlen_attn
    max_k: int,  # noqa: ARG001
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """What `torch.nn.attention.varlen.varlen_attn` computes, on any device and in any dtype.

    query: (tokens, heads, head_dim); document i is rows cu_seq_q[i] to cu_seq_q[i + 1], and the
    same of key and value by cu_seq_k. `window_size`: keys seen to the left and right, -1 for all;
    the last query stands at the last key. Reads the bounds on the host, so it waits for a GPU.
    """
    documents = []
    bounds = zip(pairwise(cu_seq_q.tolist()), pairwise(cu_seq_k.tolist()), strict=True)
    for (first, last), (first_key, last_key) in bounds:
        # SDPA cares for the order (..., heads, time, head_dim).
        q = query[first:last].transpose(0, 1)
        k, v = (x[first_key:last_key].transpose(0, 1) for x in (key, value))
        seen = _window(last - first, last_key - first_key, window_size, query.device)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
        )
        documents.append(mixed.transpose(0, 1))
    return torch.cat(documents)


def _flash(*tensors: Any, **options: Any) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(*tensors, **options)  # type: ignore[return-value]


def _one_row(*heads: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(batch, heads, time, head_dim) -> (batch x time, heads, head_dim), in one dtype.

    Under autocast the rotary embedding leaves queries and keys in float32 beside 16-bit values;
    SDPA would cast them, and flash attention refuses them.
    """
    dtype = heads[-1].dtype
    if torch.is_autocast_enabled(heads[-1].device.type):
        dtype = torch.get_autocast_dtype(heads[-1].device.type)
    return tuple(x.transpose(1, 2).flatten(0, 1).to(dtype) for x in heads)


def _rows(batch: int, time: int, device: torch.device) -> torch.Tensor:
    return torch.arange(0, (batch + 1) * time, time, dtype=torch.int32, device=device)


def _window(
    queries: int, keys: int, window: tuple[int, int], device: torch.device
) -> torch.Tensor | None:
    left, right = window
    if left < 0 and right < 0:
        return None
    # Distance of each key from its query, negative to the left.
    place = torch.arange(queries, device=device) + keys - queries
    distance = torch.arange(keys, device=device) - place.unsqueeze(1)
    seen = torch.ones_like(distance, dtype=torch.bool)
    if left >= 0:
        seen &= distance >= -left
    if right >= 0:
        seen &= distance <= right
    return seen


def _plain(config: Any) -> bool:
    """Whether flash attention computes what a model with this configuration asks for."""
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return (
        config.model_type in _FAMILIES
        and getattr(config, "attention_dropout", 0.0) == 0.0
        and head_dim <= 256
        and head_dim % 8 == 0
    )
