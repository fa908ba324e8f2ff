"""One error in a spec, with its place, and all of them as one exception."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.errors import UserError
from orchestrator.spec.words import visible

_WIDTH = 100


@dataclass(frozen=True)
class Diagnostic:
    """`job.yaml:12:9: error[unknown-key]: ...`, the line, a caret, and the way out."""

    file: str
    """The spec's path, or the option that brought the value, as `--set resources.nodes=x`."""
    line: int | None
    """From 1; None where the error has no line: an option, a file that cannot be read."""
    column: int
    """From 1, in characters."""
    code: str
    """Names the error in JSON output and stays the same across versions."""
    message: str
    suggestion: str | None = None
    source_line: str = ""
    severity: Literal["error", "warning"] = "error"

    def text(self) -> str:
        where = visible(self.file)
        if self.line is not None:
            where += f":{self.line}:{self.column}"
        lines = [f"{where}: {self.severity}[{self.code}]: {visible(self.message)}"]
        if self.source_line:
            lines += _excerpt(self.source_line, self.column)
        if self.suggestion:
            lines.append(f"  help: {visible(self.suggestion)}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file.encode("utf-8", "backslashreplace").decode("utf-8"),
            "line": self.line,
            "column": self.column,
            "severity": self.severity,
            "code": self.code,
            "message": visible(self.message),
            "suggestion": None if self.suggestion is None else visible(self.suggestion),
            "source_line": visible(self.source_line[:1000]),
        }


class SpecError(UserError):
    """Everything that is wrong with a spec, at once."""

    code = "spec"

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        count = len(diagnostics)
        file = visible(diagnostics[0].file)
        super().__init__(f"{file}: {count} error{'s' if count > 1 else ''} in the spec")
        self.diagnostics = tuple(diagnostics)

    def text(self) -> str:
        return "\n\n".join(diagnostic.text() for diagnostic in self.diagnostics)


def _excerpt(line: str, column: int) -> list[str]:
    """The part of `line` around `column` (from 1), and a line with a caret below it."""
    start = max(0, column - 1 - _WIDTH * 3 // 4) if len(line) > _WIDTH else 0
    before = ("…" if start else "") + _flat(line[start : column - 1])
    after = _flat(line[column - 1 : start + _WIDTH])
    if start + _WIDTH < len(line):
        after += "…"
    return [f"  | {before}{after}".rstrip(), f"  | {' ' * _cells(before)}^"]


def _flat(text: str) -> str:
    return visible(text.replace("\t", " "))


def _cells(text: str) -> int:
    """Columns of a terminal that `text` takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )
