"""What is wrong with the YAML itself, in a person's words."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.spec.diagnostics import Diagnostic
from orchestrator.spec.source import Source

_COLON = (
    "there is a second colon in this value",
    "put a value that holds a colon in quotes; a new key begins on a line of its own",
)
_INDENT = (
    "this line does not line up with the ones above it",
    "keys of one section begin in the same column; lists have a dash each",
)
# First match wins; the patterns fit the words of both the C parser and the Python one.
_SENTENCES: tuple[tuple[str, tuple[str, str]], ...] = (
    (r"mapping values are not allowed", _COLON),
    (
        r"unexpected end of stream",
        ("a quote that opens here is never closed", "close it with the same quote"),
    ),
    (
        r"expected node content|but found '<stream end>'",
        ("a value is missing here", "is a bracket not closed, or a comma too many?"),
    ),
    (
        r"parsing a flow sequence",
        ("a list that opens with [ is not closed", "put a comma between items and ] at the end"),
    ),
    (
        r"parsing a flow mapping",
        ("a mapping that opens with { is not closed", "put a comma between items and } at the end"),
    ),
    (
        r"unknown escape|escape code|expected escape sequence|hexdecimal|hexadecimal",
        (
            "a backslash in double quotes begins an escape, and this one is unknown",
            "use single quotes, or write two backslashes",
        ),
    ),
    (
        r"block scalar",
        ("the text after | or > is not formed right", "begin it on the next line, indented"),
    ),
    (
        r"expected ':'",
        ("this line is neither `key: value` nor a list item", "is a colon missing?"),
    ),
    (
        r"expected key|block end|expected '-' indicator|document start|block (collection|mapping)",
        _INDENT,
    ),
    (r"YAML document|directive", ("YAML directives (%) are not supported", "remove the line")),
    (
        r"anchor|alias",
        ("an anchor or alias is not formed right", "text that begins with & or * needs quotes"),
    ),
    (r"tag", ("YAML tags are not allowed", "text that begins with ! needs quotes")),
)


def syntax_error(source: Source, error: Any) -> Diagnostic:
    """`error` is any yaml.YAMLError."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return source.diagnostic(1, 1, "syntax", "this is not YAML")
    line, column = mark.line + 1, mark.column + 1
    problem = f"{error.problem or ''} {error.context or ''}"
    if "cannot start any token" in problem:
        return _bad_start(source, line, column)
    opened = getattr(error, "context_mark", None)
    if opened and re.search(r"end of stream|flow (sequence|mapping)|simple key", problem):
        line, column = opened.line + 1, opened.column + 1
    elif source.lines[min(line, len(source.lines)) - 1][column - 1 : column] in ("]", "}"):
        return source.diagnostic(
            line, column, "syntax", "this bracket closes nothing", "remove it, or open it before"
        )
    for pattern, (message, help_) in _SENTENCES:
        if re.search(pattern, problem):
            return source.diagnostic(line, column, "syntax", message, help_)
    return source.diagnostic(line, column, "syntax", f"this is not YAML: {problem.strip()}")


def _bad_start(source: Source, line: int, column: int) -> Diagnostic:
    text = source.lines[line - 1]
    char = text[column - 1 : column]
    if "\t" in text[:column]:
        return source.diagnostic(
            line,
            text.index("\t") + 1,
            "tab",
            "a tab is not allowed in the indentation",
            "use spaces",
        )
    return source.diagnostic(
        line,
        column,
        "syntax",
        f"a value cannot begin with {char}",
        "put the value in quotes",
    )
