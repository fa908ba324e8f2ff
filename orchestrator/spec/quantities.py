"""Durations and sizes as a person writes them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from orchestrator.spec.base import Refused
from orchestrator.spec.words import shown

_CLOCK = re.compile(r"(?:([0-9]{1,3})-)?([0-9]{1,3}):([0-9]{2})(?::([0-9]{2}))?")
_UNITS = re.compile(r"([0-9]{1,9})\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 366 * 86400
_SIZE = re.compile(r"([0-9]{1,9})\s*([KMGT])i?B?")
_KIB = {"K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}
_WRITE_DURATION = 'write "12:30:00", "90m", "12h" or "2d"'
_WRITE_SIZE = 'write "64GB", "512MB" or "1TB"'


def seconds(text: str) -> int:
    """`"12:30:00"` (h:m:s), `"1-12:00:00"` (days first), `"12:30"` (h:m), `"90m"`, `"12h"`, `"2d"`.

    Raises ValueError for anything else, for zero, and for more than a year.
    """
    if match := _UNITS.fullmatch(text):
        total = int(match[1]) * _SECONDS[match[2]]
    elif match := _CLOCK.fullmatch(text):
        days, hours, minutes, secs = (int(part or 0) for part in match.groups())
        if minutes > 59 or secs > 59:
            raise Refused(f"{shown(text)} has more than 59 minutes or seconds", _WRITE_DURATION)
        total = ((days * 24 + hours) * 60 + minutes) * 60 + secs
    else:
        raise Refused(f"{shown(text)} is not a duration", _WRITE_DURATION)
    if total == 0:
        raise Refused("a duration of zero makes no sense here", _WRITE_DURATION)
    if total > _LONGEST:
        raise Refused(f"{shown(text)} is longer than a year", _WRITE_DURATION)
    return total


def mebibytes(text: str) -> int:
    """`"64GB"`, `"512M"`, `"1TiB"`: whole MiB, rounded up. Raises ValueError otherwise."""
    return -(-kibibytes(text) // 1024)


def kibibytes(text: str) -> int:
    """The same exactly: no unit is smaller."""
    match = _SIZE.fullmatch(text)
    if not match or int(match[1]) == 0:
        raise Refused(f"{shown(text)} is not an amount of memory", _WRITE_SIZE)
    return int(match[1]) * _KIB[match[2]]


def _checked_duration(text: str) -> str:
    seconds(text)
    return text


def _checked_size(text: str) -> str:
    mebibytes(text)
    return text


Duration = Annotated[str, AfterValidator(_checked_duration)]
Size = Annotated[str, AfterValidator(_checked_size)]
