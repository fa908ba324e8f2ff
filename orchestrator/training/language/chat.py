"""Conversations as text, of which only what the assistant says is learnt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from orchestrator.errors import UserError
from orchestrator.training.language.tokenizers import Messages, Tokenizer

ASSISTANT = "assistant"


@dataclass(frozen=True)
class Piece:
    """Text, or ids as they are; tokenised apart from its neighbours."""

    content: str | list[int]
    counts: bool
    """Whether its tokens are targets."""


def conversation(messages: list[Any], tokenizer: Tokenizer, where: str) -> tuple[Piece, ...]:
    """Messages, `{"role": ..., "content": ...}` each, in the form that the model knows.

    That is the tokenizer's chat template. Without one it is, for every message,

        <|role|>
        content

    and a line's end, where the assistant's content is followed by the tokenizer's end. Raises
    UserError, beginning with `where`, for messages of another shape, and where a template renders
    what came before anew with each turn, so that the assistant's words cannot be told apart.
    """
    _check(messages, where)
    try:
        marked = tokenizer.marked(messages)
        if marked is not None:
            return tuple(_runs(*marked))
        whole = tokenizer.rendered(messages, reply=False)
        if whole is None:
            return tuple(_plain(messages, tokenizer))
        return tuple(_turns(whole, messages, tokenizer, where))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _check(messages: list[Any], where: str) -> None:
    for number, message in enumerate(messages, start=1):
        fits = isinstance(message, dict) and all(
            isinstance(message.get(name), str) for name in ("role", "content")
        )
        if not fits:
            raise UserError(
                f"{where}: message {number} is no object with the texts role and content",
                hint='write each as {"role": "user", "content": "..."}',
            )


def _runs(ids: list[int], marks: list[int]) -> Iterator[Piece]:
    for counts, run in groupby(zip(ids, marks, strict=True), key=lambda pair: bool(pair[1])):
        yield Piece([number for number, _ in run], counts)


def _plain(messages: Messages, tokenizer: Tokenizer) -> Iterator[Piece]:
    if tokenizer.begin is not None:
        yield Piece([tokenizer.begin], False)
    for message in messages:
        said = message["role"] == ASSISTANT
        yield Piece(f"<|{message['role']}|>\n", False)
        yield Piece(message["content"], said)
        if said:
            yield Piece([tokenizer.end], True)
        yield Piece("\n", False)


def _turns(whole: str, messages: Messages, tokenizer: Tokenizer, where: str) -> Iterator[Piece]:
    """Each turn of the assistant is what the template adds to the prompt for it."""
    done = 0
    for number, message in enumerate(messages):
        if message["role"] != ASSISTANT:
            continue
        before = tokenizer.rendered(messages[:number], reply=True) or ""
        through = tokenizer.rendered(messages[: number + 1], reply=False) or ""
        if not (through.startswith(before) and whole.startswith(through)):
            raise UserError(
                f"{where}: the chat template of {tokenizer.name} changes earlier turns when later "
                f"ones follow, so turn {number + 1} cannot be told apart",
                hint="mark the assistant's part in the template with {% generation %}, or give "
                "each turn a record of its own",
            )
        yield Piece(whole[done : len(before)], False)
        yield Piece(whole[len(before) : len(through)], True)
        done = len(through)
    yield Piece(whole[done:], False)
