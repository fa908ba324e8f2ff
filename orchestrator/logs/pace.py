"""How often to look at something that may change."""

from __future__ import annotations

from dataclasses import dataclass

SOONEST = 0.1
"""Seconds between two looks at what has just changed."""

_REST = 16


@dataclass
class Pace:
    """Looks become rarer the longer nothing changes: after a minute's rest, every four seconds.

    `latest` bounds the time between two looks, in seconds of whatever clock gives `now`.
    """

    latest: float
    changed: float
    """When it was last seen to change; at first, when it was first seen."""
    due: float = 0.0

    def looked(self, now: float, *, changed: bool) -> None:
        if changed:
            self.changed = now
        self.due = now + min(self.latest, max(SOONEST, (now - self.changed) / _REST))
