"""Durations and sizes as a person writes them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_CLOCK = re.compile(r"(?:(\d{1,3})-)?(\d{1,3}):(\d{2})(?::(\d{2}))?$")
_UNITS = re.compile(r"(\d+)\s*([smhd])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"(\d+)\s*([KMGT])i?B?$")
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}


def seconds(text: str) -> int:
    """`"12:30:00"` (h:m:s), `"1-12:00:00"` (days first), `"12:30"` (h:m), `"90m"`, `"12h"`, `"2d"`.

    Raises ValueError for anything else, and for zero.
    """
    if match := _UNITS.match(text):
        total = int(match[1]) * _SECONDS[match[2]]
    elif match := _CLOCK.match(text):
        days, hours, minutes, secs = (int(part or 0) for part in match.groups())
        if minutes > 59 or secs > 59:
            raise ValueError(f"{text!r} has more than 59 minutes or seconds")
        total = ((days * 24 + hours) * 60 + minutes) * 60 + secs
    else:
        raise ValueError(f'{text!r} is not a duration; write "12:30:00", "90m", "12h" or "2d"')
    if total == 0:
        raise ValueError("a duration of zero makes no sense here")
    return total


def mebibytes(text: str) -> int:
    """`"64GB"`, `"512M"`, `"1TiB"`: whole MiB, rounded up. Raises ValueError otherwise."""
    match = _SIZE.match(text)
    if not match or int(match[1]) == 0:
        raise ValueError(f'{text!r} is not an amount of memory; write "64GB", "512MB" or "1TB"')
    return max(1, -int(-int(match[1]) * _MIB[match[2]] // 1))


def _checked_duration(text: str) -> str:
    seconds(text)
    return text


def _checked_size(text: str) -> str:
    mebibytes(text)
    return text


Duration = Annotated[str, AfterValidator(_checked_duration)]
Size = Annotated[str, AfterValidator(_checked_size)]
