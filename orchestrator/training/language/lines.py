"""Text files, read piece by piece, with the number of the line where they are no text."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from orchestrator.errors import UserError

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20
"""Of one JSON record: a file without line ends must not fill the memory."""
BadUtf8 = Literal["stop", "replace"]


def text_blocks(path: Path, bad_utf8: BadUtf8) -> Iterator[str]:
    """The file's text in blocks of about a MiB, cut at line ends where there are any.

    Raises UserError with file and line for what is no UTF-8, unless it is to be replaced by
    U+FFFD.
    """
    with _opened(path) as file:
        left, lines = b"", 0
        while block := file.read(BLOCK_BYTES):
            data = left + block
            cut = data.rfind(b"\n") + 1 or len(data)
            text, used = _decoded(data[:cut], bad_utf8, path, lines, final=False)
            left = data[used:]
            lines += data[:used].count(b"\n")
            if text:
                yield text
        text, _ = _decoded(left, bad_utf8, path, lines, final=True)
        if text:
            yield text


def json_records(path: Path, bad_utf8: BadUtf8) -> Iterator[tuple[dict[str, Any], str]]:
    """Each line's object, and `file:line`. Empty lines are passed over.

    Raises UserError with file and line for bad UTF-8, what is no JSON or no object, and a line
    longer than `MAX_LINE_BYTES`.
    """
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise UserError(
                    f"{where}: the line is longer than {MAX_LINE_BYTES >> 20} MiB",
                    hint="write one JSON record a line, as `jq -c '.[]'` does",
                )
            text, _ = _decoded(line, bad_utf8, path, number - 1, final=True)
            if text.strip():
                yield _object(text, where), where


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is too deep"
        raise UserError(
            f"{where}: the line is no JSON: {reason}",
            hint="write one JSON record a line, as `jq -c '.[]'` does",
        ) from error
    if not isinstance(record, dict):
        raise UserError(
            f"{where}: the line is JSON and no object",
            hint='write records as {"text": "..."}, one a line',
        )
    return record


def _decoded(
    data: bytes, bad_utf8: BadUtf8, path: Path, lines: int, *, final: bool
) -> tuple[str, int]:
    """Text, and how many bytes of `data` it is: less where the last character is not whole."""
    try:
        text, used = codecs.utf_8_decode(data, _HANDLERS[bad_utf8], final)
    except UnicodeDecodeError as error:
        line = lines + data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is no UTF-8",
            hint="convert the file, as with iconv, or set the data's `bad_utf8` to replace",
        ) from error
    # A byte order mark is no text.
    return (text.removeprefix("\ufeff") if lines == 0 else text), used


_HANDLERS = {"stop": "strict", "replace": "replace"}


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """For reading, unpacked where the name ends in .gz. Raises UserError where it is not."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"cannot read the data {path}: {reason}") from error
