"""The language model that an entrypoint's arguments describe, ready for an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from orchestrator.errors import UserError
from orchestrator.spec.training import Training
from orchestrator.training.agreement import together
from orchestrator.training.engines.loading import loading
from orchestrator.training.language.adapters import add_adapter, continue_adapter, quantization
from orchestrator.training.language.attention import attention_for, keeps_documents_apart
from orchestrator.training.language.byte_model import NextByte
from orchestrator.training.language.byte_model_file import ByteModelShape
from orchestrator.training.language.forms import AdapterForm, ByteForm, DeltaForm, Form, FullForm
from orchestrator.training.language.next_token import NextToken
from orchestrator.training.language.partial import train_only
from orchestrator.training.language.pretrained import (
    check_folder,
    has_weights,
    load_config,
    pretrained_model,
    random_model,
)
from orchestrator.training.language.saved_tokenizer import tokenizer_name
from orchestrator.training.language.tokenizers import Tokenizer
from orchestrator.training.objective import Objective
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.precision import compute_dtype
from orchestrator.training.process_group import Rank

BUILT_HERE = ("bytes", "llama")


class ModelSettings(Protocol):
    """The part of an entrypoint's arguments that says which model; see the fields' own texts."""

    @property
    def model(self) -> str: ...
    @property
    def adapter(self) -> str | None: ...
    @property
    def context(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int | None: ...
    @property
    def hidden(self) -> int | None: ...
    @property
    def tied(self) -> bool: ...
    @property
    def rope_theta(self) -> float: ...


@dataclass(frozen=True)
class LanguageModel:
    objective: Objective
    form: Form
    """How it is saved once it is trained."""
    parameters: int
    """Of the whole model, tied ones once."""
    trainable: int
    """Of these, the ones that are trained."""
    origin: str
    """Where its weights come from, in words."""

    def __str__(self) -> str:
        return f"{self.parameters:,} parameters, {self.trainable:,} of them trained, {self.origin}"


def build_language_model(
    settings: ModelSettings,
    plan: TrainingPlan,
    rank: Rank,
    tokenizer: Tokenizer,
    *,
    packed: bool = False,
) -> LanguageModel:
    """The model with its adapters added or parameters frozen, and the loss of its next token.

    `packed` says that samples hold several documents. All ranks call it together. Raises
    UserError for a model that is not there, does not fit its own configuration, the tokenizer,
    the context or the plan.
    """
    training = plan.training
    if settings.adapter is not None and training.lora is None:
        raise UserError(
            "entrypoint.args.adapter names an adapter and the spec has no training.lora",
            hint="write training.lora with the adapter's rank and alpha",
        )
    if settings.model == "bytes":
        return _byte_model(settings, plan, rank, tokenizer)
    return _transformers_model(settings, plan, rank, tokenizer, packed=packed)


def tokenizer_of(settings: ModelSettings, name: str | None) -> str:
    """The tokenizer's name: `name`, else the model's own, and bytes for models built here.

    Raises UserError where there is no such model.
    """
    if name is not None:
        return name
    if settings.model in BUILT_HERE:
        return "bytes"
    check_folder(settings.model)
    return tokenizer_name(settings.model)


def _byte_model(
    settings: ModelSettings, plan: TrainingPlan, rank: Rank, tokenizer: Tokenizer
) -> LanguageModel:
    if plan.training.lora is not None:
        raise UserError(
            "adapters are put on models of transformers, and entrypoint.args.model is bytes",
            hint="name a model, or `model: llama` for a small new one",
        )
    shape = ByteModelShape(
        settings.context, settings.dim, settings.layers, settings.heads, tokenizer.vocabulary
    )
    with loading(plan, rank):
        model = shape.build()
    if plan.training.trainable is not None:
        train_only(model, plan.training.trainable)
    return _described(NextByte(model), ByteForm(model, shape), "made here")


def _transformers_model(
    settings: ModelSettings,
    plan: TrainingPlan,
    rank: Rank,
    tokenizer: Tokenizer,
    *,
    packed: bool,
) -> LanguageModel:
    training = plan.training
    with together(rank):
        new = settings.model == "llama" or not has_weights(settings.model)
        config = (
            llama_config(settings, tokenizer)
            if settings.model == "llama"
            else load_config(settings.model)
        )
        _check_tokens(config, settings, tokenizer)
        _check_packing(config, settings, packed=packed)
        quantized = quantization(training.lora, plan) if training.lora else None
        if new and quantized is not None:
            raise UserError(f"{settings.model} has no weights, and only those can be quantized")
    dtype, lowest = base_dtype(training), compute_dtype(training)
    options: dict[str, Any] = {
        "dtype": dtype,
        "attention": attention_for(rank.device, lowest, packed, config),
    }
    # Under ZeRO 3 ranks meet while they load. What can be wrong is found before or after that.
    with together(rank):
        if quantized is not None:
            options |= {"quantization": quantized, "device": rank.device}
            model, real = pretrained_model(settings.model, config, **options), True
        else:
            with loading(plan, rank) as real:
                if new or not real:
                    model = random_model(config, **options)
                else:
                    model = pretrained_model(settings.model, config, **options)
        # Outside: peft fills in its weights after making them, when ZeRO 3 would have cut them.
        with nullcontext() if real else torch.device("meta"):
            model = _prepared(model, settings, training, real=real)
    model.train()
    form = _form(model, settings, training, new=new)
    if new and settings.model != "llama":
        origin = f"{settings.model} has no weights, so it is trained from scratch"
    else:
        origin = "made here" if new else f"weights of {settings.model}"
    objective = NextToken(model)
    if tokenizer.name == "bytes":
        objective.unit = "byte"
    return _described(objective, form, origin)


def _prepared(
    model: nn.Module, settings: ModelSettings, training: Training, *, real: bool
) -> nn.Module:
    """With adapters, or with some parameters frozen, as the spec says."""
    if training.trainable is not None:
        train_only(model, training.trainable)
    if training.lora is None:
        return model
    if settings.adapter is None:
        return add_adapter(model, training.lora)
    return continue_adapter(model, Path(settings.adapter), training.lora, real=real)


def _form(model: Any, settings: ModelSettings, training: Training, *, new: bool) -> Form:
    base = base_name(settings.model)
    if training.lora is not None:
        unsaved = FullForm(model.get_base_model()) if new else None
        return AdapterForm(model, base=base, unsaved_base=unsaved)
    if training.trainable is not None and not new:
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        return DeltaForm(trained, base=base, patterns=training.trainable)
    return FullForm(model)


def base_name(model: str) -> str:
    """How a saved adapter names its base: a folder by its absolute path."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def base_dtype(training: Training) -> torch.dtype:
    """Of the weights that are loaded; adapters are float32 whatever it is."""
    return torch.bfloat16 if training.precision == "bf16" else torch.float32


def llama_config(settings: ModelSettings, tokenizer: Tokenizer) -> Any:
    """A small Llama's configuration, from the arguments. Raises UserError for dims that do not
    divide."""
    from transformers import LlamaConfig

    dim, heads = settings.dim, settings.heads
    kv_heads = settings.kv_heads or heads
    if dim % heads or dim // heads % 2:
        raise UserError(
            f"--dim {dim} does not divide into {heads} heads of an even size",
            hint=f"make --dim a multiple of {2 * heads}",
        )
    if heads % kv_heads:
        raise UserError(
            f"{heads} attention heads cannot share {kv_heads} key-value heads",
            hint="make --heads a multiple of --kv_heads",
        )
    return LlamaConfig(
        vocab_size=-(-tokenizer.vocabulary // 64) * 64,  # whole tiles, and it divides over ranks
        hidden_size=dim,
        intermediate_size=settings.hidden or 8 * dim // 3 // 16 * 16,
        num_hidden_layers=settings.layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=settings.context,
        tie_word_embeddings=settings.tied,
        rope_parameters={"rope_type": "default", "rope_theta": settings.rope_theta},
        bos_token_id=tokenizer.begin,
        eos_token_id=tokenizer.end,
        pad_token_id=tokenizer.pad,
    )


def _check_tokens(config: Any, settings: ModelSettings, tokenizer: Tokenizer) -> None:
    text = config.get_text_config()
    if getattr(text, "vocab_size", None) is None:
        raise UserError(f"{settings.model} is no language model: its type is {config.model_type}")
    if tokenizer.vocabulary > text.vocab_size:
        raise UserError(
            f"the tokenizer {tokenizer.name} has {tokenizer.vocabulary:,} tokens and the model "
            f"{settings.model} knows {text.vocab_size:,}",
            hint="give the tokenizer that the model was trained with",
        )
    longest = getattr(text, "max_position_embeddings", None)
    if longest is not None and settings.context > longest:
        raise UserError(
            f"entrypoint.args.context is {settings.context:,} and the model {settings.model} "
            f"reads {longest:,} tokens at most",
            hint="make the context shorter",
        )


def _check_packing(config: Any, settings: ModelSettings, *, packed: bool) -> None:
    """Documents that read each other would be trained on without a word."""
    if packed and not keeps_documents_apart(config.get_text_config()):
        raise UserError(
            f"samples hold several documents, and {settings.model}, of type {config.model_type}, "
            "is not known to keep them apart",
            hint="set entrypoint.args.packed to false",
        )


def _described(objective: Objective, form: Form, origin: str) -> LanguageModel:
    parameters = list(_sizes(objective))
    return LanguageModel(
        objective,
        form,
        parameters=sum(size for size, _ in parameters),
        trainable=sum(size for size, trained in parameters if trained),
        origin=origin,
    )


def _sizes(module: nn.Module) -> Iterator[tuple[int, bool]]:
    for parameter in module.parameters():
        # DeepSpeed leaves a placeholder of size 0 where it has cut a parameter over the ranks.
        size = getattr(parameter, "ds_numel", parameter.numel())
        yield int(size), parameter.requires_grad
