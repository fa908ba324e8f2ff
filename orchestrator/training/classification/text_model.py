"""The text classifier that an entrypoint's arguments describe, ready for an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from orchestrator.errors import UserError
from orchestrator.training.classification.encoding import PAD, Encoder
from orchestrator.training.classification.objective import Classify
from orchestrator.training.classification.training import Classifier
from orchestrator.training.classification.transformers_model import (
    new_classifier,
    pretrained_classifier,
)
from orchestrator.training.language.forms import FullForm
from orchestrator.training.language.pretrained import load_config
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank

DISTILBERT = "distilbert"


class TextModelSettings(Protocol):
    """The part of an entrypoint's arguments that says which model; see the fields' own texts."""

    @property
    def model(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...


def encoder_name(settings: TextModelSettings, tokenizer: str | None) -> str:
    """`tokenizer`, else the model's own, and hashed words for models made here."""
    return tokenizer or ("words" if settings.model == DISTILBERT else settings.model)


def build_text_model(
    settings: TextModelSettings,
    classes: Sequence[str],
    encoder: Encoder,
    plan: TrainingPlan,
    rank: Rank,
) -> Classifier:
    """The model and its loss; all ranks call it together. Raises UserError where the tokenizer or
    the length does not fit the model, and as `pretrained_classifier` does."""
    name = settings.model
    if name == DISTILBERT:
        config = distilbert_config(settings, encoder)
        model, origin = new_classifier("SequenceClassification", config, classes, plan, rank)
    else:
        _check_fit(load_config(name), settings, encoder)
        model, origin = pretrained_classifier("SequenceClassification", name, classes, plan, rank)
    objective = Classify(model, label_smoothing=settings.label_smoothing)
    return Classifier(objective, FullForm(model), f"{origin}, {encoder.words}", encoder.save)


def distilbert_config(settings: TextModelSettings, encoder: Encoder) -> Any:
    """DistilBERT's configuration (Sanh et al. 2019), as small as the arguments say. Raises
    UserError for dims that do not divide."""
    from transformers import DistilBertConfig

    if settings.dim % settings.heads:
        raise UserError(
            f"--dim {settings.dim} does not divide into {settings.heads} heads",
            hint="make --dim a multiple of --heads",
        )
    return DistilBertConfig(
        vocab_size=encoder.vocabulary,
        max_position_embeddings=settings.length,
        dim=settings.dim,
        n_layers=settings.layers,
        n_heads=settings.heads,
        hidden_dim=4 * settings.dim,
        dropout=settings.dropout,
        attention_dropout=settings.dropout,
        seq_classif_dropout=settings.dropout,
        pad_token_id=PAD,
        # 0.02 is for the published width; in a narrow model it would let the signal die.
        initializer_range=0.02 * (768 / settings.dim) ** 0.5,
    )


def _check_fit(config: Any, settings: TextModelSettings, encoder: Encoder) -> None:
    if encoder.vocabulary > config.vocab_size:
        raise UserError(
            f"the {encoder.words} has {encoder.vocabulary:,} tokens and the model "
            f"{settings.model} knows {config.vocab_size:,}",
            hint="give the tokenizer that the model was trained with",
        )
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and settings.length > longest:
        raise UserError(
            f"entrypoint.args.length is {settings.length:,} and the model {settings.model} reads "
            f"{longest:,} tokens at most",
            hint="make the length shorter",
        )
