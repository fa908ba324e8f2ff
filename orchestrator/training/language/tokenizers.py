"""Text into numbers: bytes as they are, or the tokenizer of a published model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.errors import UserError

Ids = npt.NDArray[np.integer[Any]]
Messages = Sequence[dict[str, str]]


class Tokenizer(Protocol):
    """What training needs of a tokenizer."""

    name: str
    vocabulary: int
    """Ids are below it; a model's output must be at least as wide."""
    begin: int | None
    """Put before each document where the tokenizer does so by itself."""
    end: int
    """Ends each document, and each turn of the assistant in the plain chat form."""
    pad: int
    """Fills up samples; never a target."""
    identity: str
    """Changes with whatever changes the ids; part of the key of a cache."""

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Each text's ids, one-dimensional, without begin and end."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special ones left out; what is no UTF-8 shows as U+FFFD."""

    def rendered(self, messages: Messages, *, reply: bool) -> str | None:
        """The model's own chat template filled in, up to where the assistant would begin to speak
        if `reply`; None where it has no template. Raises ValueError where the template refuses."""

    def marked(self, messages: Messages) -> tuple[list[int], list[int]] | None:
        """Ids of a conversation and for each 1 where the assistant says it, 0 elsewhere; None
        where the template does not mark (`{% generation %}`) what is the assistant's."""


def load_tokenizer(name: str) -> Tokenizer:
    """`bytes`, or a tokenizer by folder or hub name, as AutoTokenizer finds it.

    transformers' own rules decide where to look: HF_HOME, and nothing but the disk where
    HF_HUB_OFFLINE is set. Raises UserError where there is none, it cannot be read, or it has no
    end-of-text token.
    """
    return ByteTokenizer() if name == "bytes" else HubTokenizer(name)


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of UTF-8; 256 ends a document and 257 pads."""

    name = "bytes"
    vocabulary = 258
    begin: int | None = None
    end = 256
    pad = 257
    identity = "bytes-1"

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def rendered(self, messages: Messages, *, reply: bool) -> str | None:  # noqa: ARG002
        return None

    def marked(self, messages: Messages) -> tuple[list[int], list[int]] | None:  # noqa: ARG002
        return None


class HubTokenizer:
    """A tokenizer of transformers."""

    def __init__(self, name: str) -> None:
        """Raises UserError as `load_tokenizer` says."""
        self.name = name
        self._inner = _auto_tokenizer(name)
        inner = self._inner
        end = inner.eos_token_id
        if end is None:
            raise UserError(
                f"the tokenizer {name} has no end-of-text token, so documents could not be told "
                "apart",
                hint="give one that a causal language model was trained with",
            )
        self.end = int(end)
        self.pad = self.end if inner.pad_token_id is None else int(inner.pad_token_id)
        # Not its length: ids may leave gaps.
        self.vocabulary = max(inner.get_vocab().values(), default=-1) + 1
        first = inner("").input_ids[:1]
        own = inner.bos_token_id is not None and first == [inner.bos_token_id]
        self.begin: int | None = int(inner.bos_token_id) if own else None
        self.identity = _identity(inner)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        if not texts:
            return []
        found = self._inner(list(texts), add_special_tokens=False, return_attention_mask=False)
        return [np.asarray(ids, dtype=np.int64) for ids in found.input_ids]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._inner.decode(list(ids), skip_special_tokens=True))

    def rendered(self, messages: Messages, *, reply: bool) -> str | None:
        if self._inner.chat_template is None:
            return None
        from jinja2 import TemplateError

        try:
            return str(
                self._inner.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=reply
                )
            )
        except TemplateError as error:
            raise ValueError(f"the chat template of {self.name} refuses it: {error}") from error

    def marked(self, messages: Messages) -> tuple[list[int], list[int]] | None:
        template = self._inner.chat_template
        if not isinstance(template, str) or "generation %}" not in template.replace("-%}", " %}"):
            return None
        found = self._inner.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return list(found["input_ids"]), list(found["assistant_masks"])


def _auto_tokenizer(name: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise UserError(
            f"the tokenizer {name} needs the package transformers",
            hint="pip install 'ptx[train]', or use the tokenizer `bytes`",
        ) from error
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"cannot load the tokenizer {name}: {reason}",
            hint="give a folder with its files, or `bytes`; a hub name needs internet, or the "
            "files in HF_HOME and HF_HUB_OFFLINE=1",
        ) from error


def _identity(inner: Any) -> str:
    """A digest over vocabulary, merges, normalisation, special tokens and chat template."""
    digest = hashlib.blake2b(digest_size=16)
    if inner.is_fast:
        digest.update(inner.backend_tokenizer.to_str().encode())
    else:
        digest.update(json.dumps(sorted(inner.get_vocab().items())).encode())
    facts = (type(inner).__name__, inner.special_tokens_map, inner.chat_template)
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()
