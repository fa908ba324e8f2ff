"""One rank log, read forward in blocks into whole lines."""

from __future__ import annotations

import os
from itertools import repeat
from pathlib import Path

from orchestrator.logs.file import opened
from orchestrator.logs.line import (
    BEGINNING,
    FOREIGN,
    MARK,
    STAMP,
    Entry,
    compose,
    last_state,
    parse,
)

BLOCK = 64 * 1024
LONGEST = 4 * 1024 * 1024
"""A line (or joined pieces of one) longer than this is given out in parts; bytes."""

_PLAIN = {"Z o ", "Z e "}
_COMMIT = 64 * 1024


class LogReader:
    """Reads from `offset` on; holds no descriptor between reads, so hundreds cost none.

    Pieces that were cut before their newline are held until the line is whole; a line is given
    the time of its last piece, so that nothing has to wait for it.
    """

    def __init__(self, path: Path, source: int, offset: int = 0) -> None:
        self.path = path
        self.source = source
        self.offset = offset
        self._stamp = BEGINNING
        self._held: dict[str, str] = {}

    def read(self, size: int = BLOCK) -> list[Entry] | None:
        """The whole lines of the next `size` bytes or so; None at the present end of the file.

        A list may be empty while a line's pieces are still being collected. A file that does
        not exist (yet) is at its end. Raises UserError for one that cannot be read.
        """
        data = self._block(size)
        if not data:
            return None
        self.offset += len(data)
        text = data.decode("utf-8", "surrogateescape")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        stamps = [line[:STAMP] for line in lines]
        if not self._held and "\r" not in text and self._plain(lines, stamps):
            self._stamp = stamps[-1]
            return list(zip(stamps, repeat(self.source), lines, strict=False))
        return self._joined(lines)

    def finish(self) -> list[Entry]:
        """What has no newline and will get none: held pieces, and a last line torn in writing."""
        entries = self._joined(_torn(self._pread(LONGEST)))
        for mark, text in self._held.items():
            entries.append(self._entry(mark.upper(), text))
        self._held.clear()
        return entries

    def states(self) -> list[Entry]:
        """What the pieces that are still open show now: a progress bar, a prompt."""
        return [self._entry(mark.upper(), text) for mark, text in self._held.items() if text]

    def _block(self, size: int) -> bytes:
        """Bytes up to a newline; a line beyond LONGEST is cut."""
        while True:
            data = self._pread(size)
            end = data.rfind(b"\n") + 1
            if end:
                return data[:end]
            if len(data) < size:
                return b""
            if size >= LONGEST:
                return data
            size *= 4

    def _pread(self, size: int) -> bytes:
        with opened(self.path) as descriptor:
            return b"" if descriptor is None else os.pread(descriptor, size, self.offset)

    def _plain(self, lines: list[str], stamps: list[str]) -> bool:
        """All lines stamped, whole and in order: what nearly every block is, told without a loop.

        Sorted stamps between two that begin with a digit all begin with a digit.
        """
        return (
            {line[STAMP - 1 : STAMP + 3] for line in lines} <= _PLAIN
            and stamps[0] >= self._stamp
            and stamps[0][0].isdigit()
            and stamps[-1][0].isdigit()
            and stamps == sorted(stamps)
        )

    def _joined(self, lines: list[str]) -> list[Entry]:
        entries = []
        for line in lines:
            parsed = parse(line)
            if parsed is None:
                entries.append(self._entry(FOREIGN, line))
                continue
            # A clock that stepped back must not move a line before the one it follows.
            self._stamp = max(self._stamp, parsed.time)
            mark = line[MARK].lower()
            text = parsed.text
            if mark in self._held:
                text = _rejoin(self._held.pop(mark) + text)
            if parsed.complete:
                entries.append(self._entry(mark, text))
            elif len(text) > LONGEST:
                entries.append(self._entry(mark.upper(), text))
            else:
                self._held[mark] = _shorten(text)
        return entries

    def _entry(self, mark: str, text: str) -> Entry:
        return self._stamp, self.source, compose(self._stamp, mark, last_state(text))


def _rejoin(text: str) -> str:
    """A character whose bytes came in two pieces becomes one again."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _shorten(text: str) -> str:
    """A bar that redraws for hours keeps only its last state, not all of them."""
    return text if len(text) < _COMMIT else last_state(text)


def _torn(data: bytes) -> list[str]:
    """A line without its newline, marked as cut; nothing for less than a stamp and a mark."""
    line = data.decode("utf-8", "surrogateescape")
    if parse(line) is None:
        return [line] if line else []
    return [line[:MARK] + line[MARK].upper() + line[MARK + 1 :]]
