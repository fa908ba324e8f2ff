"""One rank's log as columns of lines. Only what is unusual in it goes line by line."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.logs.columns import Columns, columns_of, columns_of_clean, key_of
from orchestrator.logs.labelled import LONGEST_LABEL
from orchestrator.logs.line import MARK, TEXT, Entry, parse
from orchestrator.logs.output import Output
from orchestrator.logs.reader import LogReader
from orchestrator.logs.screen import plain
from orchestrator.logs.text import TextLines
from orchestrator.logs.times import size_before


def can_label(lines: TextLines, count: int) -> bool:
    """Whether a FileSource shows what `lines` would of `count` logs: not in colours, nor with
    labels so long."""
    labels = (lines.prefix(mark, source) for mark in "oe" for source in range(count))
    return not lines.is_coloured and all(len(label) <= LONGEST_LABEL for label in labels)


class FileSource:
    """With `until`, its lines before that stamp. `lines` can label it."""

    def __init__(
        self, reader: LogReader, lines: TextLines, output: Output, until: str | None = None
    ) -> None:
        self.reader = reader
        self._encode = output.encode
        self._until = until
        out, err = (output.encode(lines.prefix(mark, reader.source)) for mark in "oe")
        self.labels = out, err
        self._last = key_of(reader.stamp)
        self._ended = False

    def read(self, size: int, /) -> Columns | None:
        """Lines of about `size` bytes; None at the end."""
        while not self._ended:
            data = self.reader.peek(size)
            found = self._plain(data)
            if found is None:
                found = self._careful(data, size)
            if found is not None:
                self._last = found.last
                return found
        return None

    def _plain(self, data: bytes) -> Columns | None:
        """Of what was peeked at; None where it is not shown as it stands."""
        if not self.reader.is_plain:
            return None
        is_last = False
        if self._until is not None and (size := size_before(data, self._until)) < len(data):
            if not size or parse(data[size : size + TEXT].decode("ascii", "replace")) is None:
                return None
            data, is_last = data[:size], True
        found = columns_of(data)
        if found is None or found.first < self._last:
            return None
        self._ended = is_last
        self.reader.passed(len(data), found.last_stamp)
        return found

    def _careful(self, data: bytes, size: int) -> Columns | None:
        """Of `data`, which was peeked at: as if the log had nothing unusual in it."""
        lines = [
            f"{stamp} {'e' if line[MARK] in 'eE' else 'o'} {plain(line[TEXT:])}\n"
            for stamp, _, line in self._entries(data, size)
        ]
        return columns_of_clean(self._encode("".join(lines)), self._last) if lines else None

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
