"""The bytes of one rank as it wrote them: both its streams, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.logs.chain import Chain
from orchestrator.logs.discovery import number_of, parts
from orchestrator.logs.line import MARK, TEXT

_BLOCK = 1 << 20
_CAPITALS = frozenset(b"OE")
_STAMPED = frozenset(b"oeOE")


class RawLog:
    """Reads forward from the start of a rank's log; the stamps of the shim taken out."""

    def __init__(self, first: Path, rank: int) -> None:
        self._first = first
        self._rank = rank
        self._offset = 0
        self._chain = Chain(first, 0)
        self._missing: list[str] = []
        self._within = False

    def read(self) -> Iterator[bytes]:
        """What there is up to the present end. Raises UserError for what cannot be read."""
        while True:
            data = self._chain.pread(_BLOCK, self._offset)
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
        return self._bare(self._chain.pread(_BLOCK, self._offset))

    def missing(self) -> list[str]:
        """What of the log could not be read; told once."""
        told, self._missing = self._missing, []
        return told

    def _turn(self) -> bool:
        """To the next part, where there is one and this one is read."""
        for path in parts(self._first.parent, self._rank):
            self._chain.announce(number_of(path))
        has_next = self._chain.has_next()
        if damage := self._chain.damage():
            self._missing.append(damage)
        if not has_next:
            return False
        if b"\n" in self._chain.pread(_BLOCK, self._offset):
            return True
        if gap := self._chain.turn(self._offset):
            self._missing.append(gap)
        self._offset, self._within = 0, False
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
