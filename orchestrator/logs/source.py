"""One rank's log as times and shown lines; what a block of it needs is done to all of it at once.

The marks become ends of times and prefixes of texts, so that reading it by lines gives both in
turn. Only where something unusual is in a block it goes line by line.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from orchestrator.logs.line import STAMP, TEXT, Entry, parse
from orchestrator.logs.output import Output
from orchestrator.logs.reader import LogReader
from orchestrator.logs.text import TextLines
from orchestrator.logs.times import END, are_keys, key_of, size_before, stamp_of_key

Lines = tuple[list[bytes], list[bytes]]
"""Times, in order, and what is shown for each, its newline included."""

_SAFE = bytes(range(0x20, 0x7F)) + b"\t\n"
_OUT, _ERR = re.compile(rb"Z o "), re.compile(rb"Z e ")
"""re finds these in half the time of bytes.replace."""


class FileSource:
    """One rank's log; with `until`, its lines before that stamp."""

    def __init__(
        self, reader: LogReader, lines: TextLines, output: Output, until: str | None = None
    ) -> None:
        self.reader = reader
        self._lines = lines
        self._encode = output.encode
        self._until = until
        self._out, self._err = (
            END + output.encode(lines.prefix(mark, reader.source)) for mark in "oe"
        )
        self._both = False
        """Whether stderr was met."""
        self._block: _Block | None = None
        self._ended = False

    def read(self, size: int, block: int, /) -> Lines | None:
        """Lines of about `size` bytes; None at the end. `block`: bytes that are prepared at once.
        They are cheap, and lines are objects."""
        while not self._ended:
            if self._block is None:
                data = self.reader.peek(block)
                self._block = self._prepared(data)
                if self._block is None:
                    return self._careful(data, size)
            found = self._block.read(size)
            if found is None:
                self._pass_block()
            elif self._is_right(found, self._block):
                self._block.count(found)
                return found
            else:
                is_known = self._both
                self._both = True
                self._pass_block()
                self._ended = False
                if is_known:
                    return self._careful(self.reader.peek(size), size)
        return None

    def _prepared(self, data: bytes) -> _Block | None:
        """Of what was peeked at; None where it is not whole or not fit for a terminal as it is."""
        if not (self.reader.is_plain and data.endswith(b"\n")):
            return None
        is_last = False
        if self._until is not None and (size := size_before(data, self._until)) < len(data):
            if not size or parse(data[size : size + TEXT].decode("ascii", "replace")) is None:
                return None
            data, is_last = data[:size], True
        if data.translate(None, _SAFE):
            return None
        text = self._out.join(_OUT.split(data))
        if self._both:
            text = self._err.join(_ERR.split(text))
        return _Block(data, text, key_of(self.reader.stamp), is_last=is_last)

    def _is_right(self, found: Lines, block: _Block) -> bool:
        """Whether all lines are stamped, whole and in order: told without a loop."""
        keys, shown = found
        return (
            len(keys) == len(shown)
            and are_keys(keys)
            and not shown[-1].endswith(END)  # a mark in its text; after others comes no time
            and keys == sorted(keys)
            and keys[0] >= block.last
            and (self._until is None or keys[-1] < key_of(self._until))
        )

    def _pass_block(self) -> None:
        """The reader goes on behind what was given out of it."""
        block, self._block = self._block, None
        if block is not None:
            self.reader.passed(block.size_given, stamp_of_key(block.last))
            self._ended = block.is_last

    def _careful(self, data: bytes, size: int) -> Lines:
        """Of `data`, which was peeked at."""
        render, source = self._lines.render_text, self.reader.source
        entries = self._entries(data, size)
        return (
            [key_of(stamp) for stamp, _, _ in entries],
            [
                self._encode(f"{render(line[STAMP + 1], source, line[TEXT:])}\n")
                for _, _, line in entries
            ],
        )

    def _entries(self, data: bytes, size: int) -> Sequence[Entry]:
        until, reader = self._until, self.reader
        if until is not None:
            before = reader.before(data, until) if data else 0
            if before < len(data) or (not data and not reader.torn_before(until)):
                self._ended = True
                return (reader.read(before) or ()) if before else ()
        entries = reader.read(len(data) or size)
        if entries is None:
            self._ended = True
            return reader.finish()
        return entries


class _Block:
    """Lines of a log, prepared together and given out by and by. `last`: the time before them."""

    def __init__(self, data: bytes, text: bytes, last: bytes, *, is_last: bool) -> None:
        self._data = data
        self._text = io.BytesIO(text)
        self._given = 0
        self._is_over = False
        self._is_last = is_last
        self.last = last

    @property
    def is_last(self) -> bool:
        """Whether it was given out whole, and nothing that is wanted follows."""
        return self._is_last and self._is_over

    @property
    def size_given(self) -> int:
        """Bytes of the log."""
        if self._is_over:
            return len(self._data)
        return len(b"".join(list(io.BytesIO(self._data))[: self._given]))

    def read(self, size: int) -> Lines | None:
        """The next lines; what they are is not certain. None behind the last."""
        pieces = self._text.readlines(size)
        if len(pieces) % 2:
            pieces.append(self._text.readline())
        self._is_over = not pieces
        return (pieces[::2], pieces[1::2]) if pieces else None

    def count(self, lines: Lines) -> None:
        """These were given out."""
        self._given += len(lines[0])
        self.last = lines[0][-1]
