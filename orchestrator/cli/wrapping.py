"""Lines as wide as the terminal, broken between words alone: never inside a path, an option or a
command. Off a terminal nothing is broken."""

from __future__ import annotations

import os
import re
import textwrap
from typing import TextIO

_NARROWEST = 20
"""Columns below which a terminal breaks lines itself."""
_QUOTED = re.compile(r"`[^`\n]+`")
_GLUE = "\0"
"""Between the words of a command in a sentence, while lines are broken."""


def columns_of(stream: TextIO) -> int | None:
    """The width of its terminal; None where it is none."""
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def wrapped(text: str, columns: int | None, *, indent: int = 0) -> str:
    """One line of prose over as many as it needs. `indent` columns are taken on the first one, and
    left free on the others. A command in backquotes stays on one line where one has room for it."""
    if columns is None or columns - indent < _NARROWEST or len(text) <= columns - indent:
        return text
    glued = _QUOTED.sub(
        lambda found: (
            found[0].replace(" ", _GLUE) if len(found[0]) <= columns - indent else found[0]
        ),
        text,
    )
    return _broken(glued, columns, indent).replace(_GLUE, " ")


def wrapped_command(text: str, columns: int | None, *, indent: int) -> str:
    """A command to type: broken between its words with a backslash, as a shell has it. `indent`
    columns are taken on its first line, and left free on the others."""
    if columns is None or columns - indent < _NARROWEST or len(text) <= columns - indent:
        return text
    return _broken(text, columns - 2, indent).replace("\n", " \\\n")


def _broken(text: str, columns: int, indent: int) -> str:
    free = " " * indent
    lines = textwrap.wrap(
        text,
        columns,
        initial_indent=free,
        subsequent_indent=free,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)[indent:] if lines else text
