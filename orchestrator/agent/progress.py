"""Lines that tell how far a script has come, and nothing of how it ended."""

from __future__ import annotations

import re

_NUMBER = r"[-+]?\d[\d.,:/]*(?:e[-+]?\d+)?"
_PROGRESS = re.compile(
    r"(?i)(?:\b(?:global[_ ]?step|step|epoch|iter(?:ation)?|batch|lr|acc(?:uracy)?"
    r"|(?:\w+[_/])?loss(?:/\w+)*)s?\b['\"]?[\s:=#/\[(]*['\"]?\d|\b\d+/\d+\b.*(?:it/s|s/it))"
)
_BAR = re.compile(r"^.*\d+(?:/\d+|it) \[[\d:]+(?:<[\d:?]+)?, *[\d.?]+ ?[\w/]+/\w+")
"""tqdm's, and what it is a bar of."""
_CELL = re.compile(rf"(?i)\|\s*[a-z][^|:=\d]*[\s:=]+{_NUMBER}\s*(?=\||$)")
"""A name and its number between bars, as Megatron and fairseq print them."""
_TABLE = 2
"""Cells that make a line a row, and no sentence however many words name a number in it."""
_LOGGED = re.compile(r"^.*?\b(?:INFO|DEBUG)\b(?::[\w.]+:)?|\[[^\]]*\.py:\d+[^\]]*\]")
_METRIC = re.compile(
    r"""(?i)\b(?:\w+_\w+['"]?\s*[=:]\s*\d|\w+['"]?\s*[=:]\s*['"]?\d*\.\d"""
    r"""|number of [\w ]+[=:]\s*\d)"""
)
"""What is measured may be called as a complaint is: val_error=3, error: 0.12."""
_WORD = re.compile(r"[A-Za-z][\w/.@]+")
_MOST_WORDS = 2
"""Words that name a number; what has more is a sentence."""
_LOOKED_AT = 4096
"""Characters of a line."""
_COMPLAINT = re.compile(
    r"(?i)error|exception|fatal|panic|crash|fail|abort|stop|kill|diverg|exceed|invalid|illegal"
    r"|corrupt|broken|mismatch|conflict|violat|unable|denied|refus|reject|missing|empty|unknown"
    r"|expect|requir|assert|unsupported|terminat|interrupt|giv(?:e|ing) up|out of|without"
    r"|timed? ?-?out|usage:|n't\b"
    r"|\b(?:no|not|cannot|could|must|needs?|bad|wrong|lost|too|quit|exit(?:s|ed|ing)?|nan|please)\b"
)
"""What somebody writes who says why he gives up; "loaded 1200 samples" is no such thing."""


def speaks_of_progress(line: str) -> bool:
    """Whether a step, an epoch, a loss or the like stands in it with its number."""
    return bool(_PROGRESS.search(line))


def complains(line: str) -> bool:
    """Whether it reads like somebody's word on why he gives up."""
    return bool(_COMPLAINT.search(line))


def is_progress(line: str) -> bool:
    """Whether a line reports progress and nothing else: names with their numbers."""
    line = _LOGGED.sub("", line[:_LOOKED_AT])
    rest, bars = _BAR.subn("", line)
    if complains(_METRIC.sub("", rest)):
        return False
    if bars or len(_CELL.findall(line)) >= _TABLE:
        return True
    parts = re.split(f"(?i){_NUMBER}", line)
    *named, unit = (len(_WORD.findall(part)) for part in parts)
    return speaks_of_progress(line) and unit <= 1 and max(named, default=0) <= _MOST_WORDS
