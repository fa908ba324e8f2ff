"""The rank logs of a live run as they grow, through all its attempts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from orchestrator.logs.arrivals import Arrivals, Found
from orchestrator.logs.line import MARK, Entry
from orchestrator.logs.merge import merge
from orchestrator.logs.patrol import Patrol
from orchestrator.logs.position import START, Position
from orchestrator.logs.reader import LogReader
from orchestrator.logs.select import RankLog, Selection
from orchestrator.logs.skew import Skews
from orchestrator.logs.vanished import vanished
from orchestrator.runs.layout import RunLayout

TICK = 0.1
"""Seconds between two turns."""

WINDOW = 0.2
"""Seconds a line is held back, so that one with an earlier stamp from elsewhere can overtake."""

BAR = 5.0
"""Seconds after which a line without its newline (a progress bar) is shown as it stands."""

REST = 30.0
"""Seconds after the first log of a newer attempt for which those of older ones are looked at; then
to their ends once more, and at the run's end. A run that is often requeued has many."""

_MOST = 256 * 1024
_stamp = itemgetter(0)

Start = Callable[[RankLog], Position]


def from_start(_: RankLog) -> Position:
    return START


class Follower:
    """Selected logs and those that appear later. `logs[entry[1]]` is where an entry is from.

    `start` gives the place at which to begin in each log that is there at the first look.
    """

    def __init__(
        self, layout: RunLayout, selection: Selection, *, start: Start = from_start
    ) -> None:
        self.logs: list[RankLog] = []
        self._start = start
        self._skews = Skews(layout)
        self._arrivals = Arrivals(layout, selection)
        self._tails: dict[Path, _Tail] = {}
        self._patrol = Patrol(self._look_at)
        self._held: list[tuple[Entry, float]] = []
        self._begun = False
        self._busy = self._grew = False
        self._newest, self._newest_since = -1, 0.0
        self._gone: dict[int, bool] = {}
        """Sources that vanished, and whether that was told."""

    def history(self) -> Iterator[list[Entry]]:
        """What is there already, merged in time order. Raises UserError."""
        self._adopt(self._arrivals.look(time.monotonic(), everywhere=True))
        self._begun = True
        yield from merge([tail.reader for tail in self._tails.values()], finish=False)

    def follow(self, is_over: Callable[[], object | None]) -> Iterator[list[Entry]]:
        """Batches as they come, an empty one at each turn; ends when the run is over and read.

        `is_over` is asked at every turn, ten times a second: None while the run goes on.
        Raises UserError for a file that cannot be read.
        """
        while True:
            over = is_over() is not None  # asked first: what was written until then is read
            now = time.monotonic()
            self._adopt(self._arrivals.look(now, everywhere=over))
            self._busy = self._grew = False
            self._let_rest(now)
            self._patrol.turn(everywhere=over)
            for tail in self._patrol.retired if over else ():
                self._look_at(tail, now)
            if over and not self._grew:
                yield self._rest()
                return
            yield self._settled(now)
            if not self._busy and not over:
                time.sleep(TICK)

    def vanished(self) -> list[RankLog]:
        """Logs that were deleted since it was last asked."""
        new = [self.logs[source] for source, told in self._gone.items() if not told]
        self._gone |= dict.fromkeys(self._gone, True)
        return vanished(new)

    def _adopt(self, found: Found) -> None:
        now = time.monotonic()
        for log in found.logs:
            start = START if self._begun else self._start(log)
            shift = self._skews.of(log)
            reader = LogReader(log.path, len(self.logs), start, shift=shift)
            tail = _Tail(reader, now, log.attempt)
            if log.attempt > self._newest:
                self._newest, self._newest_since = log.attempt, now
            self._tails[log.path] = tail
            self._patrol.add(tail)
            self.logs.append(log)
        for path, part in found.parts:
            if path in self._tails:
                self._tails[path].reader.announce(part)

    def _let_rest(self, now: float) -> None:
        if now > self._newest_since + REST:
            self._newest_since = math.inf  # once for each newest attempt
            self._patrol.retire(lambda tail: tail.attempt < self._newest)
            self._arrivals.rest(self._newest)

    def _look_at(self, tail: _Tail, now: float) -> bool:
        entries, more = tail.read(now)
        if tail.reader.is_gone:
            self._gone.setdefault(tail.reader.source, False)
        self._held += [(entry, now) for entry in entries]
        self._busy |= more
        self._grew |= tail.grew
        return tail.grew

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
        for tail in self._tails.values():
            left = tail.reader.finish()
            entries += [entry for entry in left if entry[2][MARK:] not in tail.states]
        return sorted(entries, key=_stamp)


@dataclass
class _Tail:
    """The growing end of one log."""

    reader: LogReader
    shown: float
    """When it last had no open line, or the state of its open lines was given out."""
    attempt: int
    grew: bool = False
    """Whether the last look found anything."""
    states: set[str] = field(default_factory=set)

    def read(self, now: float) -> tuple[list[Entry], bool]:
        """New entries, and whether there is more at once."""
        before = self.reader.part, self.reader.offset
        entries = self.reader.read(_MOST)
        goes_on = entries is None and self.reader.look_for_next()
        place = self.reader.part, self.reader.offset
        self.grew = goes_on or place != before
        more = self.grew and (place[0] != before[0] or place[1] - before[1] > _MOST // 2)
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
