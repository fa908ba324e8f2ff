"""The one way by which text gets into a shell script.

Every expression of a template must come out of `sh` (or one of the functions here), which mark
their result as `Shell`; `finalize` refuses anything else, so a forgotten filter is a test
failure and not an injection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

from launchers.facts import Runtime, Word
from orchestrator.errors import UserError
from orchestrator.resources import template

if TYPE_CHECKING:
    from jinja2 import Template

# Control characters of C0 and C1, and lone surrogates, which no UTF-8 file can hold.
_REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/=@%+-]+", re.ASCII)


class Shell(str):
    """Text that is shell already and may go into a script as it is."""

    __slots__ = ()


def refuse_control_characters(text: str) -> str:
    """Return the text, or raise UserError where a script, a log or a terminal would garble it."""
    if match := _REFUSED.search(text):
        raise UserError(
            f"{_shown(text)} holds the character U+{ord(match[0]):04X}, which ptx puts into no "
            f"script",
            hint="control characters (newline and tab too) are refused; pass them in a file",
        )
    return text


def quote(text: str) -> Shell:
    """One shell word that stands for exactly this text."""
    refuse_control_characters(text)
    if _PLAIN.fullmatch(text):
        return Shell(text)
    return Shell("'" + text.replace("'", "'\"'\"'") + "'")


def sh(value: Word | int | Iterable[Word]) -> Shell:
    """The template filter: a word, a number, a Runtime word, or several separated by spaces."""
    if isinstance(value, Shell):
        return value
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, Runtime):
        return Shell(f'"{value.template}"')
    if isinstance(value, int):
        return Shell(int(value))
    return Shell(" ".join(sh(item) for item in value))


def sh_lines(words: Iterable[Word]) -> Shell:
    """One word a line, each line continued on the next."""
    return Shell(" \\\n  ".join(sh(word) for word in words))


def heredoc(path: Shell, text: str, program: str = "cat") -> Shell:
    """Shell that gives this text, byte for byte, to `program`, whose output becomes `path`.

    The text ends in a newline. Nothing inside is expanded, and the end mark is made from the
    text, so that no line of the text can be the mark.
    """
    if not text.endswith("\n"):
        raise ValueError("a here-document ends in a newline")
    mark = "PTX_" + sha256(text.encode()).hexdigest()[:16]
    return Shell(f"{program} >{path} <<'{mark}'\n{text}{mark}")


def load_template(name: str) -> Template:
    """A template in which every expression must be `Shell`."""
    from jinja2 import BaseLoader, Environment, StrictUndefined

    environment = Environment(
        loader=BaseLoader(),
        undefined=StrictUndefined,
        finalize=_only_shell,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - shell, not HTML; `finalize` is the guard here
    )
    environment.filters.update(sh=sh, sh_lines=sh_lines)
    return environment.from_string(template(name))


def _only_shell(value: object) -> str:
    if isinstance(value, Shell):
        return value
    raise TypeError(f"{value!r} reached a script without the sh filter")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
