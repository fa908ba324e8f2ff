"""One rank's log, all its parts, read forward in blocks into whole lines."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path

from orchestrator.logs.chain import Chain
from orchestrator.logs.line import BEGINNING, MARK, STAMP, TEXT, Entry, are_stamps, parse
from orchestrator.logs.pieces import LONGEST, Pieces
from orchestrator.logs.position import START, Position, State
from orchestrator.logs.skew import Shift

BLOCK = 64 * 1024

_PLAIN = {"Z o ", "Z e "}


class LogReader:
    """Reads from `start` on; holds no descriptor between reads.

    `path` is that of the first part. Pieces that were cut before their newline are held until the
    line is whole. `shift` corrects the stamps of a node whose clock was wrong.
    """

    def __init__(
        self,
        path: Path,
        source: int,
        start: Position = START,
        *,
        shift: Shift | None = None,
    ) -> None:
        self.path = path
        self.source = source
        self.shift = shift
        self.offset = start.offset
        self._chain = Chain(path, start.part)
        self._pieces = Pieces(source, shift)

    @property
    def part(self) -> int:
        return self._chain.part

    @property
    def rotates(self) -> bool:
        """Whether it is known to have more than one part."""
        return self._chain.rotates

    @property
    def is_one_file(self) -> bool:
        """Whether all of the log is in its first part, and that is not compressed."""
        return self._chain.is_one_file

    @property
    def stored_size(self) -> int:
        """Bytes that all its parts take on the disk. Raises UserError."""
        return self._chain.stored_size

    @property
    def is_gone(self) -> bool:
        """Whether the part that is read was not there at the last look."""
        return self._chain.file.is_gone

    @property
    def stamp(self) -> str:
        """Of the last line that was read."""
        return self._pieces.stamp

    @property
    def state(self) -> State:
        return State(Position(self.part, self.offset), self.stamp, self._pieces.held)

    def standing(self, state: State) -> LogReader:
        """Another one of the same log, which goes on from there."""
        reader = LogReader(self.path, self.source, state.position, shift=self.shift)
        reader._pieces.stamp = state.stamp
        reader._pieces.hold(state.held)
        return reader

    def size(self) -> int:
        """Unpacked bytes of the present part; 0 where it is gone."""
        return self._chain.file.size() or 0

    def read(self, size: int = BLOCK) -> list[Entry] | None:
        """The whole lines of the next `size` bytes or so; None at the present end of the log.

        A list may be empty while a line's pieces are still being collected. A log that does
        not exist (yet) is at its end. Raises UserError for one that cannot be read.
        """
        data = self._block(size)
        if not data:
            return self._turn()
        self.offset += len(data)
        text = data.decode("utf-8", "surrogateescape")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        stamps = [line[:STAMP] for line in lines]
        if self.is_plain and "\r" not in text and self._are_plain(lines, stamps):
            self._pieces.stamp = stamps[-1]
            return list(zip(stamps, repeat(self.source), lines, strict=False))
        return self._pieces.feed(lines)

    def finish(self) -> list[Entry]:
        """What has no newline and will get none: held pieces, and a last line torn in writing."""
        return self._rest() + self._pieces.finish()

    def states(self) -> list[Entry]:
        """What the pieces that are still open show now: a progress bar, a prompt."""
        return self._pieces.states()

    def announce(self, part: int) -> None:
        """There is such a part."""
        self._chain.announce(part)

    def look_for_next(self) -> bool:
        """At its end: has the log gone on in its next part?"""
        return self._chain.look_for_next()

    @property
    def is_plain(self) -> bool:
        """Whether lines that come now are shown as they stand in the file."""
        return not self._pieces.held and self.shift is None

    def peek(self, size: int) -> bytes:
        """The block that `read` would take next, as it is; b"" at the end of a part."""
        return self._block(size)

    def passed(self, size: int, stamp: str) -> None:
        """Of a plain reader: so many bytes of what was peeked at were read elsewhere, lines that
        are whole and in order. `stamp`: of the last one."""
        self.offset += size
        self._pieces.stamp = stamp

    def before(self, data: bytes, stamp: str) -> int:
        """How many bytes of `data`, which was peeked at, are lines shown with an earlier time."""
        if self.stamp >= stamp:
            return 0
        at = 0
        for line in data.split(b"\n"):
            if self._time(line) >= stamp:
                return at
            at += len(line) + 1
        return len(data)

    def torn_before(self, stamp: str) -> bool:
        """Whether a last line without its newline, if there is one, is shown with an earlier
        time."""
        data = self._chain.pread(TEXT, self.offset)
        return max(self.stamp, self._time(data)) < stamp

    def _time(self, line: bytes) -> str:
        """Its own; that of BEGINNING for a line that bears none."""
        parsed = parse(line[:TEXT].decode("ascii", "replace"))
        if parsed is None:
            return BEGINNING
        return self.shift(parsed.time) if self.shift else parsed.time

    def _turn(self) -> list[Entry] | None:
        """To the next part, once this one is read; None where there is none."""
        has_next = self._chain.has_next()
        damage = self._chain.damage()
        entries = [self._pieces.notice(damage)] if damage else []
        if not has_next:
            return entries or None
        # Whatever was written before the next part began is in this one by now.
        if (more := self._block(BLOCK)) and more.endswith(b"\n"):
            return entries
        entries += self._rest()
        missing = self._chain.turn(self.offset)
        self.offset = 0
        return [*entries, self._pieces.notice(missing)] if missing else entries

    def _rest(self) -> list[Entry]:
        """A last line torn in writing."""
        data = self._chain.pread(LONGEST, self.offset)
        self.offset += len(data)
        return self._pieces.feed(_torn(data))

    def _block(self, size: int) -> bytes:
        """Bytes up to a newline; a line beyond LONGEST is cut."""
        while True:
            data = self._chain.pread(size, self.offset)
            end = data.rfind(b"\n") + 1
            if end:
                return data[:end]
            if len(data) < size:
                return b""
            if size >= LONGEST:
                return data
            size = min(4 * size, LONGEST)  # cut at the same place, however it is read

    def _are_plain(self, lines: list[str], stamps: list[str]) -> bool:
        """All lines stamped, whole and in order, as nearly all blocks are: told without a loop."""
        return (
            {line[STAMP - 1 : STAMP + 3] for line in lines} <= _PLAIN
            and stamps[0] >= self.stamp
            and are_stamps(stamps)
            and stamps == sorted(stamps)
        )


def _torn(data: bytes) -> list[str]:
    """A line without its newline, marked as cut; nothing for less than a stamp and a mark."""
    line = data.decode("utf-8", "surrogateescape")
    if parse(line) is None:
        return [line] if line else []
    return [line[:MARK] + line[MARK].upper() + line[MARK + 1 :]]
