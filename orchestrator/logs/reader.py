"""One rank's log, all its parts, read forward in blocks into whole lines."""

from __future__ import annotations

from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from orchestrator.logs.discovery import PartName, number_of, parts
from orchestrator.logs.line import (
    BEGINNING,
    FOREIGN,
    MARK,
    STAMP,
    TEXT,
    Entry,
    compose,
    last_state,
    parse,
)
from orchestrator.logs.skew import Shift
from orchestrator.logs.stored import Stored

BLOCK = 64 * 1024
LONGEST = 4 * 1024 * 1024
"""A line (or joined pieces of one) longer than this is given out in parts; bytes."""

_PLAIN = {"Z o ", "Z e "}
_COMMIT = 64 * 1024


class Position(NamedTuple):
    """A place in a rank's log: which part, and how many bytes of it lie before."""

    part: int = 0
    offset: int = 0


START = Position()


class State(NamedTuple):
    """All that a reader needs to go on where another one stopped."""

    position: Position = START
    stamp: str = BEGINNING
    held: tuple[tuple[str, str], ...] = ()
    """Stream and text of the pieces that have no newline yet."""


class LogReader:
    """Reads from `start` on; holds no descriptor between reads.

    `path` is that of the first part. Pieces that were cut before their newline are held until the
    line is whole; a line is given the time of its last piece, so that nothing has to wait for it.
    `shift` corrects the stamps of a node whose clock was wrong.
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
        self.part, self.offset = start
        self._file = Stored(part_path(path, start.part))
        self.shift = shift
        self._stamp = BEGINNING
        self._held: dict[str, str] = {}
        self._later: list[int] | None = None
        self._told_damage = False

    @property
    def rotates(self) -> bool:
        """Whether it is known to have more than one part."""
        return self.part > 0 or bool(self._later)

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
        if (
            not self._held
            and self.shift is None
            and "\r" not in text
            and self._plain(lines, stamps)
        ):
            self._stamp = stamps[-1]
            return list(zip(stamps, repeat(self.source), lines, strict=False))
        return self._joined(lines)

    def size(self) -> int:
        """Unpacked bytes of the present part; 0 where it is gone."""
        return self._file.size() or 0

    @property
    def state(self) -> State:
        return State(Position(self.part, self.offset), self._stamp, tuple(self._held.items()))

    def standing(self, state: State) -> LogReader:
        """Another one of the same log, which goes on from there."""
        reader = LogReader(self.path, self.source, state.position, shift=self.shift)
        reader._stamp, reader._held = state.stamp, dict(state.held)
        return reader

    @property
    def is_one_file(self) -> bool:
        """Whether all of the log is in its first part, and that is not compressed."""
        name = PartName.of(self.path.name)
        return name is not None and parts(self.path.parent, name.rank) == (self.path,)

    @property
    def is_plain(self) -> bool:
        """Whether lines that come now are shown as they stand in the file."""
        return not self._held and self.shift is None

    def peek(self, size: int) -> bytes:
        """The block that `read` would take next, as it is; b"" at the end of a part."""
        return self._block(size)

    def took(self, data: bytes, first: str, last: str) -> bool:
        """Of a plain reader: `data`, with which what was peeked at begins, is taken. Its lines are
        whole and in order; `first` and `last` are their outermost stamps. False, and nothing is
        taken, where they begin too early."""
        if first < self._stamp:
            return False
        self.offset += len(data)
        self._stamp = last
        return True

    def before(self, data: bytes, stamp: str) -> int:
        """How many bytes of `data`, which was peeked at, are lines shown with an earlier time."""
        if self._stamp >= stamp:
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
        data = self._file.pread(TEXT, self.offset) or b""
        return max(self._stamp, self._time(data)) < stamp

    def _time(self, line: bytes) -> str:
        """Its own; that of BEGINNING for a line that bears none."""
        parsed = parse(line[:TEXT].decode("ascii", "replace"))
        if parsed is None:
            return BEGINNING
        return self.shift(parsed.time) if self.shift else parsed.time

    def finish(self) -> list[Entry]:
        """What has no newline and will get none: held pieces, and a last line torn in writing."""
        entries = self._rest()
        for mark, text in self._held.items():
            entries.append(self._entry(mark.upper(), text))
        self._held.clear()
        return entries

    def states(self) -> list[Entry]:
        """What the pieces that are still open show now: a progress bar, a prompt."""
        return [self._entry(mark.upper(), text) for mark, text in self._held.items() if text]

    def announce(self, part: int) -> None:
        """There is such a part."""
        if part > self.part and part not in (self._later or ()):
            self._later = sorted([*(self._later or ()), part])

    def look_for_next(self) -> None:
        """At its end: has the log gone on in its next part?"""
        if self.rotates and part_path(self.path, self.part + 1).exists():
            self.announce(self.part + 1)

    def _turn(self) -> list[Entry] | None:
        """To the next part, once this one is read; None where there is none."""
        if self._later is None:
            self._later = _later_parts(self.path, self.part)
        entries = self._damage()
        if not self._later:
            return entries or None
        # Whatever was written before the next part began is in this one by now.
        if (more := self._block(BLOCK)) and more.endswith(b"\n"):
            return entries
        entries += self._rest()
        part, file = self._next()
        if part > self.part + 1:
            gap = f"{self.part + 1} to {part - 1}" if part > self.part + 2 else f"{part - 1}"
            entries.append(self._notice(f"part {gap} of this log was dropped (logging.max)"))
        self.part, self.offset = part, 0
        self._file = file
        self._told_damage = False
        return entries

    def _next(self) -> tuple[int, Stored]:
        """The next part that the cap has left there, or the newest."""
        later = self._later or []
        while True:
            part = later.pop(0)
            file = Stored(part_path(self.path, part))
            if not later or file.size() is not None:
                return part, file

    def _damage(self) -> list[Entry]:
        if self._file.damaged is None or self._told_damage:
            return []
        self._told_damage = True
        return [self._notice(f"{self._file.plain.name}.gz is damaged from here on")]

    def _notice(self, text: str) -> Entry:
        return self._entry(FOREIGN, f"ptx: {text}")

    def _rest(self) -> list[Entry]:
        """A last line torn in writing."""
        data = self._file.pread(LONGEST, self.offset) or b""
        self.offset += len(data)
        return self._joined(_torn(data))

    def _block(self, size: int) -> bytes:
        """Bytes up to a newline; a line beyond LONGEST is cut."""
        while True:
            data = self._file.pread(size, self.offset) or b""
            end = data.rfind(b"\n") + 1
            if end:
                return data[:end]
            if len(data) < size:
                return b""
            if size >= LONGEST:
                return data
            size *= 4

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
            time = self.shift(parsed.time) if self.shift else parsed.time
            self._stamp = max(self._stamp, time)
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


def part_path(first: Path, number: int) -> Path:
    """The plain file of a part, from the path of the first one."""
    name = PartName.of(first.name)
    return first.with_name(name._replace(number=number).text) if name and number else first


def _later_parts(first: Path, after: int) -> list[int]:
    name = PartName.of(first.name)
    there = parts(first.parent, name.rank) if name else ()
    return [number for path in there if (number := number_of(path)) > after]


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
