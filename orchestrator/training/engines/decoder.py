"""The parts of a Llama-like causal language model, which some engines take apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from orchestrator.training.errors import NotSupported


@dataclass(frozen=True)
class Decoder:
    """Modules of transformers' LlamaForCausalLM and of what has the same names."""

    owner: nn.Module
    """Of trunk and output layer, as `model` and `lm_head`."""
    trunk: nn.Module
    """From token ids to the last hidden states: (batch, time) -> (batch, time, dim)."""
    embedding: nn.Embedding
    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Linear
    tied: bool
    """Whether input and output embedding are one matrix (Press and Wolf 2017)."""

    @property
    def has_first(self) -> bool:
        """Whether the embedding is still there: only a pipeline's first stage keeps it."""
        return self.trunk.embed_tokens is self.embedding

    @property
    def has_last(self) -> bool:
        """The same of the last norm and the output layer."""
        return self.owner.lm_head is self.head


def decoder_of(model: nn.Module, *, purpose: str) -> Decoder:
    """The parts of `model`, inside an adapter's wrapper too.

    Told by its modules' names and kinds: Llama, Mistral, Qwen2, Qwen3 and others share them.
    Raises NotSupported, naming `purpose`, where the model is of another family.
    """
    unwrap: Any = getattr(model, "get_base_model", None)
    inner = model if unwrap is None else unwrap()
    trunk, head = getattr(inner, "model", None), getattr(inner, "lm_head", None)
    embedding, layers = getattr(trunk, "embed_tokens", None), getattr(trunk, "layers", None)
    norm = getattr(trunk, "norm", None)
    if (
        isinstance(trunk, nn.Module)
        and isinstance(embedding, nn.Embedding)
        and isinstance(layers, nn.ModuleList)
        and isinstance(norm, nn.Module)
        and isinstance(head, nn.Linear)
        and all(_is_decoder_layer(layer) for layer in layers)
    ):
        tied = head.weight is embedding.weight
        return Decoder(inner, trunk, embedding, layers, norm, head, tied)
    raise NotSupported(
        f"{purpose} knows the Llama family by its modules' names, and {type(inner).__name__} "
        "has others",
        hint="train this model with strategy ddp, fsdp or zero alone",
    )


_PARTS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


def _is_decoder_layer(layer: nn.Module) -> bool:
    norms = (getattr(layer, f"{place}_layernorm", None) for place in ("input", "post_attention"))
    return all(isinstance(norm, nn.Module) for norm in norms) and all(
        isinstance(getattr(getattr(layer, block, None), name, None), nn.Module)
        for block, names in _PARTS.items()
        for name in names
    )
