"""Entries as text lines with `[rank node]`, or as JSON objects."""

from __future__ import annotations

import json
from collections.abc import Sequence

from orchestrator.logs.dedupe import Folded
from orchestrator.logs.line import BEGINNING, MARK, TEXT, Entry, parts
from orchestrator.logs.numbers import spoken
from orchestrator.logs.screen import RESET, coloured, decoded, plain
from orchestrator.logs.select import RankLog

# Readable on dark and light grounds; red is kept for stderr.
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)
_RED, _BOLD = "\x1b[31m", "\x1b[1m"
_WIDEST = 24
"""Characters for the ranks that share a line."""
_SAFE = bytes(range(0x20, 0x7F)) + b"\t\n"


class TextLines:
    """`[3 node-0001] text`, and `[3 node-0001 err] text` for stderr.

    `logs` may grow while it is used. A log of another attempt than the first one's, and all of
    them with `attempts`, bear theirs: `[3 node-0001 a1]`.
    """

    def __init__(self, logs: Sequence[RankLog], *, colour: bool, attempts: bool = False) -> None:
        self._logs = logs
        self._colour = colour
        self._attempts = attempts
        self._prefixes: dict[str, list[str]] = {"o": [], "e": []}
        self._prefixes |= {mark.upper(): own for mark, own in self._prefixes.items()}
        self._prefixes["?"] = self._prefixes["o"]

    def render(self, entries: Sequence[Entry]) -> str:
        """Whole lines, each with its newline."""
        if not entries:
            return ""
        self._extend()
        prefixes = self._prefixes
        if not self._colour:
            text = "\n".join(
                [prefixes[line[MARK]][source] + line[TEXT:] for _, source, line in entries]
            )
            if text.isascii() and not text.encode("ascii").translate(None, _SAFE):
                return text + "\n"  # nothing in it that a terminal would obey: the usual case
        clean = coloured if self._colour else plain
        return "".join(
            [
                prefixes[line[MARK]][source] + clean(line[TEXT:]) + "\n"
                for _, source, line in entries
            ]
        )

    @property
    def is_coloured(self) -> bool:
        return self._colour

    def prefix(self, mark: str, source: int) -> str:
        """What stands before the text of a line of that stream, a space included."""
        self._extend()
        return self._prefixes[mark][source]

    def render_folded(self, folded: Sequence[Folded]) -> str:
        """Lines that several ranks printed as `[0-62 \u00d763 ranks] text`."""
        return "".join(
            [
                self.render([one.entry]) if len(one.ranks) == 1 else self._shared(one)
                for one in folded
            ]
        )

    def _shared(self, folded: Folded) -> str:
        _, source, line = folded.entry
        who = spoken(folded.ranks)
        if len(who) > _WIDEST:
            who = f"{who[:_WIDEST].rpartition(',')[0]}, …"
        label = f"{who} \u00d7{len(folded.ranks)} ranks"
        if self._attempts or self._logs[source].attempt != self._logs[0].attempt:
            label += f" a{self._logs[source].attempt}"
        error = line[MARK] in "eE"
        if not self._colour:
            return f"[{label}{' err' * error}] {plain(line[TEXT:])}\n"
        return f"{_BOLD}[{label}{(_RED + ' err') * error}]{RESET} {coloured(line[TEXT:])}\n"

    def _extend(self) -> None:
        for log in self._logs[len(self._prefixes["o"]) :]:
            label = f"{log.rank} node-{log.node:04d}"
            if self._attempts or log.attempt != self._logs[0].attempt:
                label += f" a{log.attempt}"
            if self._colour:
                own = f"\x1b[{_COLOURS[log.rank % len(_COLOURS)]}m"
                self._prefixes["o"].append(f"{own}[{label}]{RESET} ")
                self._prefixes["e"].append(f"{own}[{label}{_RED} err{own}]{RESET} ")
            else:
                self._prefixes["o"].append(f"[{label}] ")
                self._prefixes["e"].append(f"[{label} err] ")


class JsonLines:
    """`{"v":1,"time","attempt","node","rank","stream","text","complete"}`, one object a line.

    `time` is null for a line without a stamp at the very start of a file, `stream` (stdout or
    stderr) for any without one; `complete` is false where the writer stopped before the newline.
    """

    def __init__(self, logs: Sequence[RankLog]) -> None:
        self._logs = logs

    def render(self, entries: Sequence[Entry]) -> str:
        return "".join([json.dumps(self._fields(entry)) + "\n" for entry in entries])

    def render_folded(self, folded: Sequence[Folded]) -> str:
        """Besides `ranks`, all that printed such a line."""
        return "".join(
            [json.dumps({**self._fields(one.entry), "ranks": one.ranks}) + "\n" for one in folded]
        )

    def _fields(self, entry: Entry) -> dict[str, object]:
        log, line = self._logs[entry[1]], parts(entry)
        return {
            "v": 1,
            "time": None if line.time == BEGINNING else line.time,
            "attempt": log.attempt,
            "node": log.node,
            "rank": log.rank,
            "stream": line.stream,
            "text": decoded(line.text),
            "complete": line.complete,
        }
