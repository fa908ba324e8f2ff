"""The rank logs of a live run, as they grow, without inotify: network filesystems have none.

A file that grows is looked at ten times a second, one that rests ever more rarely, so that
hundreds of idle ranks cost a hundred looks a second and not thousands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter

from orchestrator.logs.discovery import Discovery
from orchestrator.logs.line import MARK, Entry
from orchestrator.logs.merge import merge
from orchestrator.logs.pace import SOONEST, Pace
from orchestrator.logs.reader import LogReader
from orchestrator.logs.select import RankLog, Selection
from orchestrator.runs.layout import RunLayout

IDLE = 2.0
"""Longest time between two looks at a file, in seconds."""

WINDOW = 0.2
"""Seconds a line is held back, so that one with an earlier stamp from elsewhere can overtake."""

BAR = 5.0
"""Seconds after which a line without its newline (a progress bar) is shown as it stands."""

_MOST = 256 * 1024
_stamp = itemgetter(0)

Start = Callable[[RankLog], int]


def from_start(_: RankLog) -> int:
    return 0


class Follower:
    """Selected logs and those that appear later. `logs[entry[1]]` is where an entry is from.

    `start` gives the offset at which to begin in each log that is there at the first look.
    """

    def __init__(
        self, layout: RunLayout, selection: Selection, *, start: Start = from_start
    ) -> None:
        self.logs: list[RankLog] = []
        self._start = start
        self._discovery = Discovery(layout, selection)
        self._tails: list[_Tail] = []
        self._held: list[tuple[Entry, float]] = []
        self._begun = False

    def history(self) -> Iterator[list[Entry]]:
        """What is there already, merged in time order. Raises UserError."""
        self._adopt(self._discovery.look(time.monotonic(), everywhere=True))
        self._begun = True
        yield from merge([tail.reader for tail in self._tails], finish=False)

    def follow(self, is_over: Callable[[], object | None]) -> Iterator[list[Entry]]:
        """Batches as they come, an empty one at each look; ends when the run is over and read.

        `is_over` is asked at every look, ten times a second: None while the run goes on.
        Raises UserError for a file that cannot be read.
        """
        while True:
            over = is_over() is not None  # asked first: what was written until then is read
            now = time.monotonic()
            self._adopt(self._discovery.look(now, everywhere=over))
            busy = self._read(now, everywhere=over)
            if over and not busy:
                yield self._rest()
                return
            yield self._settled(now)
            if not busy:
                time.sleep(SOONEST)

    def _adopt(self, logs: list[RankLog]) -> None:
        now = time.monotonic()
        for log in logs:
            offset = 0 if self._begun else self._start(log)
            self._tails.append(_Tail(LogReader(log.path, len(self.logs), offset), now))
            self.logs.append(log)

    def _read(self, now: float, *, everywhere: bool) -> bool:
        """Read what is due; True where a file has more than one look should take."""
        busy = False
        for tail in self._tails:
            if everywhere or tail.pace.due <= now:
                entries, more = tail.read(now)
                self._held += [(entry, now) for entry in entries]
                busy = busy or more
        return busy

    def _settled(self, now: float) -> list[Entry]:
        """What was held long enough, and all that is stamped before it."""
        self._held.sort(key=_held_stamp)
        ripe = 0
        for index, (_, arrived) in enumerate(self._held):
            if arrived + WINDOW <= now:
                ripe = index + 1
        settled = [entry for entry, _ in self._held[:ripe]]
        del self._held[:ripe]
        return settled

    def _rest(self) -> list[Entry]:
        entries = [entry for entry, _ in self._held]
        self._held.clear()
        for tail in self._tails:
            entries += tail.reader.finish()
        return sorted(entries, key=_stamp)


@dataclass
class _Tail:
    """The growing end of one file."""

    reader: LogReader
    shown: float
    """When it last had no open line, or the state of its open lines was given out."""
    states: set[str]
    pace: Pace

    def __init__(self, reader: LogReader, now: float) -> None:
        self.reader = reader
        self.shown = now
        self.states = set()
        self.pace = Pace(IDLE, now)

    def read(self, now: float) -> tuple[list[Entry], bool]:
        """New entries, and whether there is more at once."""
        before = self.reader.offset
        entries = self.reader.read(_MOST) or []
        grown = self.reader.offset - before
        self.pace.looked(now, changed=grown > 0)
        more = grown > _MOST // 2
        if more:
            self.pace.due = now
        return entries or self._state(now), more

    def _state(self, now: float) -> list[Entry]:
        states = self.reader.states()
        if not states:
            self.shown, self.states = now, set()
        elif now - self.shown > BAR:
            new = [entry for entry in states if entry[2][MARK:] not in self.states]
            self.shown, self.states = now, {entry[2][MARK:] for entry in states}
            return new
        return []


def _held_stamp(held: tuple[Entry, float]) -> str:
    return held[0][0]
