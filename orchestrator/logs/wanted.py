"""Which lines of the chosen logs are wanted, and where in each log they can begin."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator.errors import UserError
from orchestrator.logs.level import Level, Levels
from orchestrator.logs.line import TEXT, Entry
from orchestrator.logs.position import START, Position
from orchestrator.logs.screen import plain
from orchestrator.logs.seek import offset_of_last, offset_since
from orchestrator.logs.select import RankLog, Selection
from orchestrator.logs.skew import Skews

T = TypeVar("T")


@dataclass
class Wanted:
    """Times are stamps. `filter` is to see every batch once, in order: levels need the past."""

    selection: Selection
    since: str | None = None
    until: str | None = None
    grep: re.Pattern[str] | None = None
    level: Level | None = None
    tail: int | None = None
    dedupe: bool = False
    _levels: Levels = field(default_factory=Levels)

    @property
    def is_part(self) -> bool:
        return any(x is not None for x in (self.grep, self.since, self.until, self.level))

    @property
    def is_everything(self) -> bool:
        return not self.is_part and self.tail is None and not self.dedupe

    def start(self, skews: Skews) -> Callable[[RankLog], Position]:
        """Before which a log holds nothing that is wanted."""

        def of(log: RankLog) -> Position:
            position = START
            if self.since is not None:
                shift = skews.of(log)
                since = shift.back(self.since) if shift else self.since
                position = offset_since(log.path, since)
            narrowed = self.dedupe or any(
                x is not None for x in (self.grep, self.until, self.level)
            )
            if self.tail is not None and not narrowed:
                position = max(position, offset_of_last(log.path, self.tail))
            return position

        return of

    def filter(self, entries: list[Entry]) -> list[Entry]:
        """Of a batch in time order."""
        if self.level is not None:
            level, of = self.level, self._levels.of
            entries = [entry for entry in entries if of(entry) >= level]
        if self.since is not None and entries and entries[0][0] < self.since:
            since = self.since
            entries = [entry for entry in entries if entry[0] >= since]
        if self.until is not None and entries and entries[-1][0] > self.until:
            until = self.until
            entries = [entry for entry in entries if entry[0] <= until]
        if self.grep is not None:
            found = self.grep.search
            entries = [entry for entry in entries if found(plain(entry[2][TEXT:]))]
        return entries

    def history(self, batches: Iterable[list[Entry]]) -> Iterator[list[Entry]]:
        """What is wanted of the lines that are there already, as far as `until`."""
        for entries in batches:
            if self.until is not None and entries and entries[0][0] > self.until:
                return
            yield self.filter(entries)

    def last(self, batches: Iterable[list[T]]) -> Iterator[list[T]]:
        """The last `tail` of them, where that was asked for."""
        if self.tail is None:
            yield from batches
            return
        last: deque[T] = deque(maxlen=self.tail)
        for entries in batches:
            last.extend(entries)
        yield list(last)


def pattern(text: str) -> re.Pattern[str]:
    """As typed after --grep. Raises UserError."""
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        column = getattr(error, "colno", None)
        where = f" at character {column}" if column else ""
        raise UserError(
            f"--grep {text!r} is not a regular expression: "
            f"{getattr(error, 'msg', 'it is too large')}{where}.",
            hint="It is searched as Python's re does; put \\ before . * + ? ( ) [ ] { } | ^ $ \\ "
            "to mean the character itself.",
        ) from error
