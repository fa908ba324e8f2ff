"""Lines that tell how far a script has come, and nothing of how it ended."""

from __future__ import annotations

import re

_PROGRESS = re.compile(
    r"(?i)(?:\b(?:global[_ ]?step|step|epoch|iter(?:ation)?|batch|loss|lr|acc(?:uracy)?)s?\b"
    r"['\"]?[\s:=#/\[(]*\d|\b\d+/\d+\b.*(?:it/s|s/it))"
)
_NUMBER = re.compile(r"[-+]?\d[\d.,:/]*(?:e[-+]?\d+)?")
_WORD = re.compile(r"[A-Za-z][\w/.@]+")
_LOGGED = re.compile(r"\b(?:INFO|DEBUG)\b")
_MOST_WORDS = 2
"""Words that name a number; what has more is a sentence."""
_REASON = re.compile(r"(?i)fail|abort|stop|exit|invalid|diverg|exceed|kill|\bnan\b")


def speaks_of_progress(line: str) -> bool:
    """Whether a step, an epoch, a loss or the like stands in it with its number."""
    return bool(_PROGRESS.search(line))


def is_progress(line: str) -> bool:
    """Whether a line reports progress and nothing else: names with their numbers."""
    if not speaks_of_progress(line) or _REASON.search(line):
        return False
    *named, unit = (len(_WORD.findall(part)) for part in _NUMBER.split(_LOGGED.sub("", line)))
    return unit <= 1 and max(named, default=0) <= _MOST_WORDS
