"""What appears while a run is watched: attempts, nodes, ranks, and further parts of their logs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from orchestrator.logs.discovery import PartName, attempts, names, node_folders, node_number
from orchestrator.logs.pace import Pace
from orchestrator.logs.select import RankLog, Selection
from orchestrator.runs.layout import RunLayout

LATEST = 3.0
"""Longest time between two looks into one folder, in seconds."""


class Found(NamedTuple):
    logs: list[RankLog]
    """Seen for the first time, in order."""
    parts: list[tuple[Path, int]]
    """Further parts: the path of the first one, and which it is."""


class Arrivals:
    """Of the attempt that was asked for; else of the newest at the first look and later ones."""

    def __init__(self, layout: RunLayout, selection: Selection) -> None:
        self._layout = layout
        self._selection = selection
        self._first = 0 if selection.all_attempts else selection.attempt
        self._attempts: dict[int, Pace] = {}
        self._nodes: dict[Path, Pace] = {}
        self._seen: dict[Path, set[tuple[int, int]]] = {}
        self._root = Pace(LATEST, 0.0)
        self._over_below = 0

    def rest(self, below: int) -> None:
        """Attempts before this one are looked into no more, except everywhere."""
        self._over_below = below

    def look(self, now: float, *, everywhere: bool = False) -> Found:
        """What was not seen before, in folders that are due at `now` (or in all)."""
        if everywhere or self._root.due <= now:
            new = self._new_attempts()
            self._attempts |= {number: Pace(LATEST, now) for number in new}
            self._root.looked(now, changed=bool(new))
        for number, pace in self._attempts.items():
            if everywhere or (pace.due <= now and number >= self._over_below):
                folders = node_folders(self._layout.attempt(number))
                nodes = [folder for folder in folders if folder not in self._nodes]
                self._nodes |= {folder: Pace(LATEST, now) for folder in nodes}
                pace.looked(now, changed=bool(nodes))
        found = Found([], [])
        for folder, pace in self._nodes.items():
            going_on = int(folder.parent.name) >= self._over_below
            if everywhere or (pace.due <= now and going_on):
                pace.looked(now, changed=self._look_into(folder, found))
        found.logs.sort()
        return found

    def _new_attempts(self) -> list[int]:
        numbers = attempts(self._layout)
        if self._selection.attempt is not None:
            numbers = [number for number in numbers if number == self._selection.attempt]
        if self._first is None and numbers:
            self._first = numbers[-1]
        return [n for n in numbers if n >= (self._first or 0) and n not in self._attempts]

    def _look_into(self, folder: Path, found: Found) -> bool:
        """One listing a node, whatever it holds; whether it holds anything new."""
        there = {(part.rank, part.number) for name in names(folder) if (part := PartName.of(name))}
        seen = self._seen.setdefault(folder, set())
        new, known = there - seen, {rank for rank, _ in seen}
        seen |= new
        attempt, node = int(folder.parent.name), node_number(folder)
        for rank in {rank for rank, _ in new} - known:
            log = RankLog(attempt, node, rank, folder / PartName(rank, 0, False).text)
            if self._selection.covers(log):
                found.logs.append(log)
        found.parts.extend(
            (folder / PartName(rank, 0, False).text, number) for rank, number in sorted(new)
        )
        return bool(new)
