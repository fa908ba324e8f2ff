"""The bytes of one rank as it wrote them: both its streams, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.logs.chain import part_path
from orchestrator.logs.discovery import number_of, parts
from orchestrator.logs.line import MARK, TEXT
from orchestrator.logs.stored import Stored

_BLOCK = 1 << 20
_CAPITALS = frozenset(b"OE")
_STAMPED = frozenset(b"oeOE")


class RawLog:
    """Reads forward from the start of a rank's log; the stamps of the shim taken out."""

    def __init__(self, first: Path, rank: int) -> None:
        self._first = first
        self._rank = rank
        self._part = 0
        self._offset = 0
        self._file = Stored(first)
        self._within = False

    def read(self) -> Iterator[bytes]:
        """What there is up to the present end. Raises UserError for what cannot be read."""
        while True:
            data = self._file.pread(_BLOCK, self._offset) or b""
            end = data.rfind(b"\n") + 1
            if end == 0 and len(data) == _BLOCK:
                end = _BLOCK  # a line of megabytes goes on in the next block
            if end:
                self._offset += end
                yield self._bare(data[:end])
            elif not self._turn():
                return

    def finish(self) -> bytes:
        """A last line that was torn in writing."""
        return self._bare(self._file.pread(_BLOCK, self._offset) or b"")

    def _turn(self) -> bool:
        """To the next part, where there is one and this one is read."""
        there = map(number_of, parts(self._first.parent, self._rank))
        numbers = [number for number in there if number > self._part]
        if not numbers:
            return False
        if b"\n" in (self._file.pread(_BLOCK, self._offset) or b""):
            return True
        self._part, self._offset = numbers[0], 0
        self._file = Stored(part_path(self._first, self._part))
        return True

    def _bare(self, data: bytes) -> bytes:
        pieces = []
        for line in data.splitlines(keepends=True) if b"\r" not in data else _lines(data):
            if self._within:
                text = line
            elif line[MARK : MARK + 1] and line[MARK] in _STAMPED and line[TEXT - 1 :][:1] == b" ":
                text = line[TEXT:]
                self._cut = line[MARK] in _CAPITALS
            else:
                text, self._cut = line, False
            self._within = not line.endswith(b"\n")
            pieces.append(text[:-1] if self._cut and text.endswith(b"\n") else text)
        return b"".join(pieces)

    _cut = False
    """Whether the newline after the present line is the stamper's own."""


def _lines(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines
