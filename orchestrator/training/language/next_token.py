"""Next-token prediction with a causal language model of transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from orchestrator.training.language.attention import model_inputs
from orchestrator.training.language.linear_loss import (
    LOGITS_AT_ONCE,
    linear_cross_entropy,
    summed_cross_entropy,
    whole_logits,
)
from orchestrator.training.objective import Objective

_PLAIN_HEADS = (
    *("arcee", "bloom", "codegen", "deepseek_v2", "deepseek_v3", "ernie4_5", "ernie4_5_moe"),
    *("exaone4", "gemma", "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neo"),
    *("gpt_neox", "gptj", "helium", "llama", "ministral", "ministral3", "mistral", "mixtral"),
    *("nemotron", "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3"),
    *("phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm"),
    "starcoder2",
)
"""Model types whose logits are `lm_head(last hidden state)`. Others scale or cap them (Gemma 2,
Cohere, Granite), or may: for those the model's own forward computes the logits."""


class NextToken(Objective):
    """Cross-entropy of each next token; `model` is what AutoModelForCausalLM makes, or that
    inside a peft adapter."""

    unit = "token"
    logits_at_once = LOGITS_AT_ONCE
    """Above so many logits in a micro batch they are computed and dropped chunk by chunk."""

    def forward(
        self,
        inputs: dict[str, torch.Tensor],
        targets: torch.Tensor,
        extras: dict[str, int],
        want_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """inputs["tokens"], targets: int64 (batch, time); the loss is in nats, summed.

        inputs["positions"], where there: int64 (batch, time), starting anew from 0 with each
        document of a packed sequence, which then attends to itself alone. See `model_inputs`.
        """
        config: Any = self.model.config
        many = targets.numel() * config.vocab_size > self.logits_at_once
        if want_logits or not many or not has_plain_head(self.model):
            logits = self.model(**self._arguments(inputs, extras)).logits
            loss = summed_cross_entropy(logits, targets)
            return loss, whole_logits(logits) if want_logits else None
        loss = linear_cross_entropy(
            self.hidden_states(inputs, extras),
            base_model(self.model).get_output_embeddings(),
            targets,
            vocabulary=config.vocab_size,
            at_once=self.logits_at_once,
        )
        return loss, None

    def hidden_states(
        self, inputs: dict[str, torch.Tensor], extras: dict[str, int]
    ) -> torch.Tensor:
        """What the output layer takes: (batch, time, dim). A pipeline's stages call it too."""
        decoder = base_model(self.model).get_decoder()
        hidden: torch.Tensor = decoder(**self._arguments(inputs, extras)).last_hidden_state
        return hidden

    def _arguments(self, inputs: dict[str, torch.Tensor], extras: dict[str, int]) -> dict[str, Any]:
        config: Any = self.model.config
        arguments = model_inputs(inputs, extras, config._attn_implementation)
        return arguments | {"input_ids": inputs["tokens"], "use_cache": False}


def base_model(model: nn.Module) -> Any:
    """The transformers model inside a peft adapter, or `model` itself."""
    inner = getattr(model, "get_base_model", None)
    return model if inner is None else inner()


def has_plain_head(model: nn.Module) -> bool:
    """Whether the logits are the output layer's, applied to the decoder's hidden states."""
    adapters: Any = getattr(model, "peft_config", None) or {}
    # Prompt and prefix tuning change the inputs in the wrapper's own forward.
    prompts = any(adapter.is_prompt_learning for adapter in adapters.values())
    config: Any = model.config
    return not prompts and config.model_type in _PLAIN_HEADS
