"""Lines of one log made whole: pieces that were cut before their newline wait for the rest."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.logs.line import BEGINNING, FOREIGN, MARK, Entry, compose, last_state, parse
from orchestrator.logs.skew import Shift

LONGEST = 4 * 1024 * 1024
"""A line (or joined pieces of one) longer than this is given out in parts; bytes."""
_COMMIT = 64 * 1024


class Pieces:
    """A line is given the time of its last piece, so that nothing has to wait for it. `shift`
    corrects the stamps of a node whose clock was wrong."""

    def __init__(self, source: int, shift: Shift | None = None) -> None:
        self.stamp = BEGINNING
        """Of the last line that was fed."""
        self.shift = shift
        self._source = source
        self._held: dict[str, str] = {}

    @property
    def held(self) -> tuple[tuple[str, str], ...]:
        """Stream and text of those that are open."""
        return tuple(self._held.items())

    def hold(self, held: Iterable[tuple[str, str]]) -> None:
        self._held = dict(held)

    def feed(self, lines: Iterable[str]) -> list[Entry]:
        """The lines that are whole with these."""
        entries = []
        for line in lines:
            parsed = parse(line)
            if parsed is None:
                entries.append(self._entry(FOREIGN, line))
                continue
            # A clock that stepped back must not move a line before the one it follows.
            time = self.shift(parsed.time) if self.shift else parsed.time
            self.stamp = max(self.stamp, time)
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

    def finish(self) -> list[Entry]:
        """Those that will get no rest."""
        entries = [self._entry(mark.upper(), text) for mark, text in self._held.items()]
        self._held.clear()
        return entries

    def states(self) -> list[Entry]:
        """What those that are open show now: a progress bar, a prompt."""
        return [self._entry(mark.upper(), text) for mark, text in self._held.items() if text]

    def notice(self, text: str) -> Entry:
        """A line of ours between them."""
        return self._entry(FOREIGN, f"ptx: {text}")

    def _entry(self, mark: str, text: str) -> Entry:
        return self.stamp, self._source, compose(self.stamp, mark, last_state(text))


def _rejoin(text: str) -> str:
    """A character whose bytes came in two pieces becomes one again."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _shorten(text: str) -> str:
    """A bar that redraws for hours keeps only its last state, not all of them."""
    return text if len(text) < _COMMIT else last_state(text)
