"""How grave a line is, as people's loggers print it: logging, absl, glog, loguru, c10, NCCL, JSON.

A line without a level is INFO; one that is indented belongs to the line before it, and a
traceback, with the exceptions that led to it, is ERROR as a whole.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

from orchestrator.agent.traceback_header import begins_traceback
from orchestrator.errors import UserError
from orchestrator.logs.line import MARK, TEXT, Entry
from orchestrator.logs.screen import plain


class Level(IntEnum):
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40

    @classmethod
    def of(cls, text: str) -> Level:
        """As typed after --level. Raises UserError."""
        level = _NAMES.get(text.upper())
        if level is None:
            raise UserError(
                f"--level {text!r} is not a level.",
                hint="It is DEBUG, INFO, WARNING or ERROR; it and worse are shown.",
            )
        return level


_NAMES = {
    "TRACE": Level.DEBUG, "DEBUG": Level.DEBUG, "VERBOSE": Level.DEBUG,
    "INFO": Level.INFO, "NOTICE": Level.INFO, "SUCCESS": Level.INFO,
    "WARN": Level.WARNING, "WARNING": Level.WARNING,
    "ERR": Level.ERROR, "ERROR": Level.ERROR, "SEVERE": Level.ERROR, "CRITICAL": Level.ERROR,
    "FATAL": Level.ERROR, "EXCEPTION": Level.ERROR, "PANIC": Level.ERROR,
}  # fmt: skip
_LETTERS = {
    "D": Level.DEBUG, "V": Level.DEBUG, "I": Level.INFO, "W": Level.WARNING,
    "E": Level.ERROR, "F": Level.ERROR, "C": Level.ERROR,
}  # fmt: skip
_ANY = "|".join(sorted(_NAMES, key=len, reverse=True))
_HEAD = 160
"""Characters in which a logger names its level."""

_TORCH = re.compile(r"^(?:\[(?:rank|default)\d+\]: ?)+")
# glog, absl and c10: `W1122 10:00:00.1 file.py:3] text`, `[E ProcessGroupNCCL.cpp:8] text`.
_LETTER = re.compile(
    r"^\[?([DVIWEFC])(?:\d{3,8}[ ]\d\d:\d\d:|[ ]\S+\.(?:cpp|cc|h|hpp|cu|py):\d+\])"
)
# `ERROR:root:`, `Error: `, `error: ` first; `[INFO]`, `| ERROR |`, `- WARNING -`, `<info>` anywhere
# in the head; bare after a time of day or NCCL's name.
_FIRST = re.compile(rf"^({_ANY})(?::|[ ]*[|\]\)>]|[ ]+-[ ]|[ ]+\[|\t|$)", re.IGNORECASE)
_LONELY = re.compile(rf"^({_ANY})[ ]")
_FENCED = re.compile(
    rf"(?:[\[|(<]|[ ]-|[ ]—)[ ]*({_ANY})[ ]*(?:[\]|)>:/,]|-[ ]|—|[ ]-)", re.IGNORECASE
)
_AFTER_TIME = re.compile(rf"\d\d:\d\d.*?[\s:,]({_ANY})(?=[\s:,\[|]|$)|\bNCCL ({_ANY})(?=\s)")
_FIELD = re.compile(
    rf"""["']?(?:level|levelname|level_name|severity|lvl)["']?\s*[=:]\s*["']?({_ANY})\b""",
    re.IGNORECASE,
)
_WARNING = re.compile(r"(?:^|[\s:])[A-Za-z_.]*Warning:")
_CHAINED = (
    "During handling of the above exception",
    "The above exception was the direct cause",
)
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Group)(?::|$)"
    r"|^(?:Fatal Python error|terminate called|Segmentation fault|Bus error|Aborted)\b"
    r"|^(?:srun|slurmstepd|sbatch|bash)[^:]*: error:"
    r"|^\S+\.(?:py|cpp|cc|cu|h):\d+: (?:fatal )?error:"
)
# What faulthandler prints of a crash: blocks with blank lines between.
_FATAL = "Fatal Python error:"
_DUMP = re.compile(
    r"\s|$|(?:Current thread|Thread) 0x|Current thread's C stack|Python runtime state:"
    r"|Extension modules:"
)
# `error: 0.31` that ends there, or where another column begins, is a metric.
_COLUMN = re.compile(
    r":[ ]*[-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf)[ ]*%?[ ]*"
    r"(?:$|[|)\]}]|(?:[,;-][ ]*|(?<=[ ]))[A-Za-z_][\w/@.-]*[ ]*[:= ][ ]*[-+]?[\d.])",
    re.IGNORECASE,
)
_TELLING = re.compile(
    rf"{_ANY}|warning|error|exception|interrupt|group|fault|abort|called|^\W*[DVIWEFC][ \d]",
    re.IGNORECASE,
)
"""What every line with a level has: the others are told with one search."""


def level_of(text: str) -> Level | None:
    """Of one line without stamp and colours; None where it names none."""
    text = _TORCH.sub("", text)[:_HEAD] if text.startswith("[") else text[:_HEAD]
    if not _TELLING.search(text):
        return None
    if found := _LETTER.match(text):
        return _LETTERS[found[1]]
    if _EXCEPTION.match(text):
        return Level.ERROR
    for pattern in (_FIRST, _LONELY, _FENCED, _AFTER_TIME, _FIELD):
        if (found := pattern.search(text)) and not _is_metric(text, found):
            return _NAMES[found[found.lastindex or 0].upper()]
    return Level.WARNING if _WARNING.search(text) else None


def _is_metric(text: str, found: re.Match[str]) -> bool:
    """A column that is named like a level; what a logger writes there is in capitals."""
    name = found.lastindex or 0
    return not found[name].isupper() and bool(_COLUMN.match(text, found.end(name)))


class _State(NamedTuple):
    level: Level
    """Of the line before."""
    traceback: str
    """open: within one; ended: its last line was seen; gap: and a blank one after it; dump: within
    the stacks of a crash; else ''."""
    stamp: str


_NOTHING = _State(Level.INFO, "", "")


class Levels:
    """Tells each line's level by itself and those before it; one state a stream of a source."""

    def __init__(self) -> None:
        self._states: dict[tuple[int, str], _State] = {}

    def of(self, entry: Entry) -> Level:
        stamp, source, line = entry
        stream = line[MARK].lower()
        text = plain(line[TEXT : TEXT + 4 * _HEAD])
        before = self._states.get((source, stream), _NOTHING)
        after = _next(before, _TORCH.sub("", text), stamp)
        if after != before:
            self._states[source, stream] = after
        return after.level


def _next(before: _State, text: str, stamp: str) -> _State:
    if begins_traceback(text) or (before.traceback and text.startswith(_CHAINED)):
        return _State(Level.ERROR, "open", stamp)
    if text.startswith(_FATAL) or (before.traceback == "dump" and _DUMP.match(text)):
        return _State(Level.ERROR, "dump", stamp)
    indented = text[:1] in (" ", "\t", "|", "+", "")
    if before.traceback == "open":
        return _State(Level.ERROR, "open" if indented else "ended", stamp)
    if before.traceback and not text.strip():
        return before._replace(traceback="gap")
    found = level_of(text)
    # The rest of a message of many lines was written with its first one, under one stamp.
    if found is None and before.traceback == "ended" and (indented or stamp == before.stamp):
        return before
    if found is None and indented and text.strip() and not before.traceback:
        return before
    return _State(Level.INFO if found is None else found, "", stamp)
