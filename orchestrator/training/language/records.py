"""What a record of the data says, as pieces of text that count or do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import UserError
from orchestrator.training.language.chat import Piece, conversation
from orchestrator.training.language.tokenizers import Tokenizer

FORMS = (("messages",), ("prompt", "completion"), ("text",))
"""The forms of a record by its columns; of several that fit the first is taken."""


@dataclass(frozen=True)
class Draft:
    """A document before it is tokenised, or where that is long, the next part of one."""

    pieces: tuple[Piece, ...]
    closes: bool = True
    """Whether the document ends here."""


@dataclass(frozen=True)
class Reader:
    """Turns records into drafts. `columns` says which column stands for `text`, for `prompt` and
    `completion`, or for `messages`; where it is empty they bear these names."""

    tokenizer: Tokenizer
    columns: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.columns and not any(set(form) == set(self.columns) for form in FORMS):
            raise UserError(
                f"columns are given for {', '.join(self.columns)}, which is no form of a record",
                hint="name the columns of text, of prompt and completion, or of messages",
            )

    def form(self, present: Iterable[str], where: str) -> dict[str, str]:
        """Which of the `present` columns are read, by what they stand for.

        Raises UserError, beginning with `where`, where none of the forms is there.
        """
        have = set(present)
        forms = [dict(self.columns)] if self.columns else [{n: n for n in form} for form in FORMS]
        for form in forms:
            if have.issuperset(form.values()):
                return form
        wanted = ", nor ".join(" and ".join(form.values()) for form in reversed(forms))
        listed = ", ".join(sorted(map(str, have))) or "none"
        raise UserError(
            f"{where}: there is no column {wanted}; the columns are: {listed}",
            hint="name the columns to read with the data's `columns`",
        )

    def draft(self, record: Mapping[str, Any], where: str) -> Draft | None:
        """The record as a document, or None where nothing in it could be learnt.

        Raises UserError, beginning with `where` (file and line), for missing columns and values
        of another kind.
        """
        form = self.form(record, where)
        values = {name: record[column] for name, column in form.items()}
        for name, value in values.items():
            kind = list if name == "messages" else str
            if not isinstance(value, kind):
                wanted = "a list of messages" if kind is list else "text"
                raise UserError(
                    f"{where}: {form[name]} is {_kind(value)}, and must be {wanted}",
                    hint="put the record right, or take it out",
                )
        if "messages" in values:
            pieces = conversation(values["messages"], self.tokenizer, where)
        elif "prompt" in values:
            pieces = self._completion(values["prompt"], values["completion"])
        else:
            pieces = self.text(values["text"], opens=True, closes=True) if values["text"] else ()
        return Draft(pieces) if any(piece.counts for piece in pieces) else None

    def text(self, text: str, *, opens: bool, closes: bool) -> tuple[Piece, ...]:
        """All of it counts; a document opens with the tokenizer's begin and closes with its end."""
        begin = [Piece([self.tokenizer.begin], True)] if self.tokenizer.begin is not None else []
        end = Piece([self.tokenizer.end], True)
        return (*(begin if opens else ()), Piece(text, True), *((end,) if closes else ()))

    def _completion(self, prompt: str, completion: str) -> tuple[Piece, ...]:
        """Tokenised apart, as in use, where the prompt is there before the completion is."""
        if not completion:
            return ()
        begin = [Piece([self.tokenizer.begin], False)] if self.tokenizer.begin is not None else []
        end = Piece([self.tokenizer.end], True)
        return (*begin, Piece(prompt, False), Piece(completion, True), end)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")
