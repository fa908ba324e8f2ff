"""New rank logs of a live run: attempts, nodes and ranks appear while it is watched."""

from __future__ import annotations

from pathlib import Path

from orchestrator.logs.pace import Pace
from orchestrator.logs.select import RankLog, Selection, attempts, node_folders, rank_logs
from orchestrator.runs.layout import RunLayout

LATEST = 3.0
"""Longest time between two looks into one folder, in seconds."""


class Discovery:
    """Of the attempt that was asked for; else of the newest at the first look and later ones."""

    def __init__(self, layout: RunLayout, selection: Selection) -> None:
        self._layout = layout
        self._selection = selection
        self._first = 0 if selection.all_attempts else selection.attempt
        self._attempts: dict[int, Pace] = {}
        self._nodes: dict[Path, Pace] = {}
        self._logs: set[Path] = set()
        self._root = Pace(LATEST, 0.0)

    def look(self, now: float, *, everywhere: bool = False) -> list[RankLog]:
        """Logs not seen before, in folders that are due at `now` (or in all), in order."""
        if everywhere or self._root.due <= now:
            new = self._new_attempts()
            self._attempts |= {number: Pace(LATEST, now) for number in new}
            self._root.looked(now, changed=bool(new))
        for number, pace in self._attempts.items():
            if everywhere or pace.due <= now:
                folders = node_folders(self._layout.attempt(number))
                nodes = [folder for folder in folders if folder not in self._nodes]
                self._nodes |= {folder: Pace(LATEST, now) for folder in nodes}
                pace.looked(now, changed=bool(nodes))
        logs: list[RankLog] = []
        for folder, pace in self._nodes.items():
            if everywhere or pace.due <= now:
                found = self._new_logs(folder)
                pace.looked(now, changed=bool(found))
                logs += found
        return sorted(logs)

    def _new_attempts(self) -> list[int]:
        numbers = attempts(self._layout)
        if self._selection.attempt is not None:
            numbers = [number for number in numbers if number == self._selection.attempt]
        if self._first is None and numbers:
            self._first = numbers[-1]
        return [n for n in numbers if n >= (self._first or 0) and n not in self._attempts]

    def _new_logs(self, folder: Path) -> list[RankLog]:
        attempt = int(folder.parent.name)
        logs = [log for log in rank_logs(attempt, folder) if log.path not in self._logs]
        self._logs |= {log.path for log in logs}
        return [log for log in logs if self._selection.covers(log)]
