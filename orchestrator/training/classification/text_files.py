"""Labelled texts from CSV and JSON Lines files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from orchestrator.errors import UserError

MAX_LINE_BYTES = 16 << 20
"""A longer line is no text for a classifier, but a file that is not what it is taken for."""


@dataclass
class LabelledTexts:
    """One file's texts, in its order."""

    path: Path
    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """Where each one stands in the file, from 1."""

    def add(self, text: str, label: str, line: int) -> None:
        self.texts.append(text)
        self.labels.append(label)
        self.lines.append(line)


def read_texts(path: Path, *, text_column: str, label_column: str) -> LabelledTexts:
    """A .csv file with a header, or a .jsonl (.ndjson) file of objects; UTF-8.

    Labels are text or whole numbers. Raises UserError, naming the line, for what cannot be read,
    lacks a column, or is empty.
    """
    readers: dict[str, Callable[[BinaryIO, LabelledTexts, str, str], None]] = {
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
        ".ndjson": _read_jsonl,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path} is neither a .csv nor a .jsonl file",
            hint="write one of these, with a text and a label in each row",
        )
    found = LabelledTexts(path)
    try:
        with path.open("rb") as file:
            reader(file, found, text_column, label_column)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if not found.texts:
        raise UserError(f"{path} holds no text: it is empty, or has nothing but a header")
    return found


def _read_csv(file: BinaryIO, found: LabelledTexts, text: str, label: str) -> None:
    csv.field_size_limit(MAX_LINE_BYTES)
    rows = csv.reader(_lines(file, found.path), strict=True)
    try:
        header = next(rows, [])
        columns = [_column(found.path, header, name) for name in (text, label)]
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{found.path}, line {rows.line_num}: {len(row)} fields, and the header has "
                    f"{len(header)}"
                )
            content, name = (row[column] for column in columns)
            found.add(content, _label(name, found.path, rows.line_num), rows.line_num)
    except csv.Error as error:
        raise UserError(f"{found.path}, line {rows.line_num}: {error}") from error


def _read_jsonl(file: BinaryIO, found: LabelledTexts, text: str, label: str) -> None:
    for number, line in enumerate(_lines(file, found.path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{found.path}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{found.path}, line {number}: no JSON object")
        for name in (text, label):
            if name not in row:
                raise _no_column(f"{found.path}, line {number}", name, list(row))
        content = row[text]
        if not isinstance(content, str):
            raise UserError(f"{found.path}, line {number}: {text} is no text: {content!r:.40}")
        found.add(content, _label(row[label], found.path, number), number)


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise UserError(f"{path}, line {number}: longer than {MAX_LINE_BYTES:,} bytes")
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {number}: no UTF-8 from byte {error.start + 1} of the line on",
                hint="convert the file with iconv",
            ) from error


def _column(path: Path, header: Sequence[str], name: str) -> int:
    if not header:
        raise UserError(f"{path} is empty")
    if name not in header:
        raise _no_column(f"{path}, line 1", name, header)
    return header.index(name)


def _no_column(where: str, name: str, there: Sequence[str]) -> UserError:
    return UserError(
        f"{where}: there is no column {name}",
        hint=f"columns are {', '.join(there)}; name yours with entrypoint.args.text_column and "
        "label_column",
    )


def _label(value: object, path: Path, line: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise UserError(
            f"{path}, line {line}: the label is {value!r:.40}, and not a word or whole number"
        )
    return str(value)
