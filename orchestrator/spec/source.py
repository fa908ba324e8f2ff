"""The text of a spec and how to point into it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from orchestrator.spec.diagnostics import Diagnostic, SpecError
from orchestrator.spec.words import closest, shown

MAX_BYTES = 1 << 20

# What YAML counts as a line break; str.splitlines() knows more of them.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# What YAML's reader refuses, and surrogates, which stand for undecodable bytes of an argument.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_FORBIDDEN_SHOWN = 20


@dataclass(frozen=True)
class Source:
    name: str
    """The file's path, or the option that brought the text."""
    text: str
    prefix: str | None = None
    """For an option: what stands before the value, as `resources.nodes=`."""

    @cached_property
    def lines(self) -> list[str]:
        return _BREAK.split(self.text)

    def diagnostic(
        self,
        line: int,
        column: int,
        code: str,
        message: str,
        suggestion: str | None = None,
        severity: Literal["error", "warning"] = "error",
    ) -> Diagnostic:
        """Point at `line` and `column` (both from 1); a place past the end is moved back to it."""
        line = min(line, len(self.lines))
        text = self.lines[line - 1]
        column = min(column, len(text) + 1)
        if self.prefix is None:
            return Diagnostic(self.name, line, column, code, message, suggestion, text, severity)
        # An option is one line to its reader, whatever its value holds.
        shift = len(self.prefix) + sum(len(before) + 1 for before in self.lines[: line - 1])
        whole = self.prefix + " ".join(self.lines)
        return Diagnostic(
            self.name, None, shift + column, code, message, suggestion, whole, severity
        )

    def place(self, index: int) -> tuple[int, int]:
        """Line and column of the character at `index`."""
        before = _BREAK.split(self.text[:index])
        return len(before), len(before[-1]) + 1

    def forbidden(self) -> Iterable[Diagnostic]:
        """A diagnostic for each of the first characters that no YAML may hold."""
        for count, match in enumerate(_FORBIDDEN.finditer(self.text)):
            if count == _FORBIDDEN_SHOWN:
                return
            code = ord(match[0])
            what = "a NUL byte" if code == 0 else f"the control character U+{code:04X}"
            if 0xD800 <= code <= 0xDFFF:
                what = "a byte that is not UTF-8"
            yield self.diagnostic(
                *self.place(match.start()),
                "control-character",
                f"{what} cannot stand in a spec",
                "remove it; your editor may show it as ^@ or as a box",
            )


def read(path: Path) -> bytes:
    """The file's bytes. Raises SpecError for what cannot be read or is larger than MAX_BYTES."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _unreadable(path, "file-missing", "there is no such file", _neighbour(path)) from None
    except IsADirectoryError:
        raise _unreadable(
            path, "file-is-folder", "this is a folder, not a spec", _inside(path)
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(
            path, "file-unreadable", f"the file cannot be read: {reason}", "check its permissions"
        ) from None
    if len(data) > MAX_BYTES:
        raise _unreadable(
            path,
            "file-too-large",
            "the file is larger than 1 MiB",
            "a spec is a page of text: is this the right file?",
        )
    return data


def decode(path: Path, data: bytes) -> Source:
    """UTF-8, with or without a byte order mark. Raises SpecError for anything else."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _unreadable(path, "not-utf8", "the file is UTF-16", "save it as UTF-8")
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return Source(str(path), data.decode("utf-8"))
    except UnicodeDecodeError as error:
        # Latin-1 has a character for every byte, so the line can still be shown.
        source = Source(str(path), data.decode("latin-1"))
        before = Source("", data[: error.start].decode("utf-8"))
        line, column = before.place(len(before.text))
        raise SpecError(
            [
                Diagnostic(
                    str(path),
                    line,
                    column,
                    "not-utf8",
                    f"the byte 0x{data[error.start]:02X} at offset {error.start} is not UTF-8",
                    "save the file as UTF-8",
                    source.text.split("\n")[data.count(b"\n", 0, error.start)].rstrip("\r"),
                )
            ]
        ) from None


def _unreadable(path: Path, code: str, message: str, suggestion: str | None) -> SpecError:
    return SpecError([Diagnostic(str(path), None, 1, code, message, suggestion)])


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {shown(str(path.parent))} does not exist either"
    match = closest(path.name, _specs(path.parent))
    if match:
        return f"did you mean {path.parent / match}?"
    return "give the path of a YAML file"


def _inside(path: Path) -> str:
    names = sorted(_specs(path))
    if names:
        return f"give a file in it, as {path / names[0]}"
    return "give the path of a YAML file"


def _specs(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if entry.suffix in (".yaml", ".yml")]
    except OSError:
        return []
