"""A real LlamaForCausalLM, small enough for a test; every rank makes the same one."""

from __future__ import annotations

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)


def tiny_llama(*, tied: bool = False, layers: int = 4, seed: int = 0) -> LlamaForCausalLM:
    """Grouped key-value heads (4 query heads on 2), byte vocabulary, float32, on the CPU."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def tiny_relative(family: str) -> PreTrainedModel:
    """The same size in a family of the same module names: "mistral", "qwen2" (with biases) or
    "qwen3" (with norms over heads)."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        attn_implementation="sdpa",
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model
