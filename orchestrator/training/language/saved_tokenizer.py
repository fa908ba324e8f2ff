"""The tokenizer beside a saved model, so that the folder alone is enough."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.training.language.tokenizers import Tokenizer, load_tokenizer

_BYTES = "ptx_tokenizer.json"
_HUB = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write it into `folder`: a hub's in its own format, or a note that it is bytes."""
    if tokenizer.name == "bytes":
        (folder / _BYTES).write_text(json.dumps({"tokenizer": "bytes"}) + "\n")
        return
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(tokenizer.name).save_pretrained(folder)


def tokenizer_name(folder: str) -> str:
    """What `load_tokenizer` is given for the model in `folder`, or of that name on the hub."""
    return "bytes" if (Path(folder) / _BYTES).is_file() else folder


def saved_tokenizer(folder: Path, base: str | None) -> Tokenizer:
    """The tokenizer that was saved with a model, else its base's. Raises UserError."""
    if (folder / _BYTES).is_file() or any((folder / name).is_file() for name in _HUB):
        return load_tokenizer(tokenizer_name(str(folder)))
    if base is not None:
        return load_tokenizer(tokenizer_name(base))
    raise UserError(f"{folder} has no tokenizer", hint="name one with --tokenizer")
