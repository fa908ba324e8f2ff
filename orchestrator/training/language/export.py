"""A trained language model as a folder, with its tokenizer."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from orchestrator.training.language.forms import Form, State
from orchestrator.training.language.saved_tokenizer import save_tokenizer
from orchestrator.training.language.tokenizers import Tokenizer
from orchestrator.training.output import write_model


def export(
    form: Form,
    state: State,
    folder: Path,
    *,
    tokenizer: Tokenizer,
    step: int,
    group_shared: bool = False,
) -> None:
    """Write a trained model's gathered tensors as `folder`; rank 0 alone calls it.

    See `output.write_model` for what a reader finds meanwhile, and for errors.
    """
    beside = partial(save_tokenizer, tokenizer)
    write_model(form, state, folder, step=step, beside=beside, group_shared=group_shared)
