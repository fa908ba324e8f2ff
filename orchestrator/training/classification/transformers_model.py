"""Classifiers of transformers: by configuration, or with the weights of a folder or hub name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from orchestrator.errors import UserError
from orchestrator.training.engines.loading import loading
from orchestrator.training.language.pretrained import (
    first_line,
    has_weights,
    hub_errors,
    load_config,
    quiet,
)
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank

Task = Literal["ImageClassification", "SequenceClassification"]


class Origin(NamedTuple):
    model: nn.Module
    words: str
    """Where its weights come from."""


def new_classifier(
    task: Task, config: Any, classes: Sequence[str], plan: TrainingPlan, rank: Rank
) -> Origin:
    """With random weights, made from transformers' `config`. All ranks call it together.

    Raises UserError for a configuration that transformers cannot make a model of.
    """
    _name_classes(config, classes)
    with loading(plan, rank):
        return Origin(_random(task, config), "made here")


def pretrained_classifier(
    task: Task, name: str, classes: Sequence[str], plan: TrainingPlan, rank: Rank
) -> Origin:
    """With the weights in folder `name`, or of that name on the hub; all ranks call it together.

    The head is new where the file has none, or one for another number of classes.
    Raises UserError where the model is not there, or its body does not fit its configuration.
    """
    config = load_config(name)
    before = config.num_labels
    _name_classes(config, classes)
    with _loading_whole(plan, rank) as real:
        if not has_weights(name):
            return Origin(_random(task, config), f"{name} has no weights: trained from scratch")
        if not real:
            return Origin(_random(task, config), f"weights of {name}")
        model, report = _loaded(task, name, config)
    head = _new_head(name, model, report, before, len(classes))
    return Origin(model, f"weights of {name}{head}")


def _loading_whole(plan: TrainingPlan, rank: Rank) -> AbstractContextManager[bool]:
    """transformers cannot give a model that ZeRO 3 cuts while it is made a head of another size,
    so that every rank makes it whole, and the engine cuts it afterwards."""
    strategy = plan.strategy
    if strategy.name == "zero" and strategy.stage == 3:
        return nullcontext(True)
    return loading(plan, rank)


def _name_classes(config: Any, classes: Sequence[str]) -> None:
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}


def _random(task: Task, config: Any) -> nn.Module:
    with _config_errors(task, config), quiet():
        model: nn.Module = _auto(task).from_config(
            config, dtype=torch.float32, attn_implementation="sdpa"
        )
    return model


def _loaded(task: Task, name: str, config: Any) -> tuple[nn.Module, Mapping[str, Any]]:
    from safetensors import SafetensorError

    with hub_errors(f"the weights of {name}"), _config_errors(task, config), quiet():
        try:
            model, report = _auto(task).from_pretrained(
                name,
                config=config,
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except SafetensorError as error:
            raise UserError(
                f"cannot read the weights of {name}: {error}",
                hint="the file is torn or no safetensors: copy or download it again",
            ) from error
    return model, report


def _new_head(name: str, model: Any, report: Mapping[str, Any], before: int, classes: int) -> str:
    """In words, what is new in the head. transformers makes up weights for all that is missing or
    of another shape, and only the head may be so."""
    body = f"{model.base_model_prefix}."
    lacking = dict.fromkeys(report["missing_keys"], "is missing")
    lacking |= {
        key: f"is {tuple(there)} in the file and {tuple(here)} by the configuration"
        for key, there, here in report["mismatched_keys"]
    }
    for key, what in sorted(lacking.items()):
        if key.startswith(body):
            raise UserError(
                f"the weights of {name} do not fit its config.json: {key} {what}",
                hint="give the configuration that belongs to these weights",
            )
    if not lacking:
        return ""
    if report["mismatched_keys"]:
        return f"; new head: {classes} classes in place of {before}"
    return f"; new head: {classes} classes"


def _auto(task: Task) -> Any:
    import transformers

    return getattr(transformers, f"AutoModelFor{task}")


@contextmanager
def _config_errors(task: Task, config: Any) -> Iterator[None]:
    """What transformers says of configurations that are no such classifier's."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        kind = "an image" if task == "ImageClassification" else "a text"
        raise UserError(
            f"transformers cannot make {kind} classifier of type {config.model_type}: "
            f"{first_line(error)}"
        ) from error
