"""Lines of a log as columns: their times as numbers, where they stand, and on which stream.

numpy does to a million lines at once what would take a microsecond for each.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.logs.line import MARK, STAMP, TEXT

Bytes = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_SHAPE = b"0000-00-00T00:00:00.000000Z l "
"""What a line begins with: digits, and what always stands there. `l` differs from both streams'
letters by less than ten, as digits do from `0`."""
_TEMPLATE = np.frombuffer(_SHAPE, np.uint8)
_OUT, _ERR = ord("o") ^ ord("l"), ord("e") ^ ord("l")
_LIMIT = np.array([9 if letter in b"0l" else 0 for letter in _SHAPE], np.uint8)
_DATE = len("2026-11-21")
_PAIRS = ((11, 12), (14, 15), (17, 18), (20, 21), (22, 23), (24, 25))
"""Digits of the time of day."""
_FIRST_YEAR, _LAST_YEAR = 1970, 2097
_LATEST = np.uint64(2**64 - 2)
"""Later than any time of these years, and not the last number, so that one is after it."""
_WHICH = np.uint64(0x0001020304050607)
"""Times 256 to the power of n, its first byte is n."""
_USUAL = 16384
"""Lines in a block at most, as a rule."""
_NEWLINE, _TAB, _SPACE, _DELETE = 0x0A, 0x09, 0x20, 0x7F


class Columns(NamedTuple):
    """Of `n` lines."""

    data: Bytes
    """All of them as they are in the log, each with its newline."""
    keys: Keys
    """[n], in order: of its line's time, as key_of gives it, or of a later one before it."""
    starts: Places
    """[n]"""
    ends: Places
    """[n], behind the newlines."""
    errors: npt.NDArray[np.bool_]
    """[n], whether it was printed to stderr."""

    @property
    def first(self) -> int:
        """Key of the first line."""
        return int(self.keys[0])

    @property
    def last(self) -> int:
        """Key of the last line."""
        return int(self.keys[-1])

    @property
    def last_stamp(self) -> str:
        start = int(self.starts[-1])
        return self.data[start : start + STAMP].tobytes().decode("ascii")


def columns_of(data: bytes) -> Columns | None:
    """Of lines that are shown as they are; None where one is not stamped, whole, in order and fit
    for a terminal, or of a year that can only be wrong."""
    newlines = _newlines(data) if data.endswith(b"\n") else None
    if newlines is None or not _is_safe(data, len(newlines)):
        return None
    found = _columns(data, newlines)
    if found is None:
        return None
    keys = found.keys
    is_right = keys[0] > 1 and keys[-1] < _LATEST and bool((keys[1:] >= keys[:-1]).all())
    return found if is_right else None


def columns_of_clean(data: bytes, last: int) -> Columns:
    """Of stamped lines, one or more, made fit for a terminal; no key is before `last`."""
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    found = _columns(data, newlines)
    if found is None:
        raise ValueError("a line that was composed is not stamped")
    keys = np.maximum(np.maximum.accumulate(found.keys), np.uint64(last))
    return found._replace(keys=keys)


@lru_cache(maxsize=16)  # all logs begin a slice at one time
def key_of(stamp: str) -> int:
    """A number that compares as stamps do from 1970 to 2097. Those of other years, and those of
    months and days that no calendar has, are one where they should be several."""
    digits = np.frombuffer(stamp.encode(), np.uint8) ^ _TEMPLATE[:STAMP]
    return int(_keys(digits.reshape(1, STAMP))[0])


def _newlines(data: bytes) -> Places:
    """Where they stand; of two among eight bytes, as in lines too short to be stamped, only one.

    Eight bytes are looked at together.
    """
    size = len(data)
    are = np.zeros(-(-size // 8) * 8, np.bool_)
    np.equal(np.frombuffer(data, np.uint8), _NEWLINE, out=are[:size])
    words = are.view("<u8")
    places = np.flatnonzero(words != 0)
    return (places << 3) + ((words[places] * _WHICH) >> np.uint64(56)).astype(np.int64)


def _is_safe(data: bytes, newlines: int) -> bool:
    """Whether nothing but printable ASCII, tabs and so many newlines is in it."""
    letters = np.frombuffer(data, np.uint8)
    others = np.count_nonzero(letters < _SPACE) - newlines
    return bool(letters.max() < _DELETE) and (not others or others == data.count(_TAB))


def _columns(data: bytes, newlines: Places) -> Columns | None:
    """None where a line is not stamped, or not whole."""
    count = len(newlines)
    ends = newlines + 1
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    if bool((newlines - starts < TEXT).any()):
        return None
    heads = np.ndarray((len(data) - TEXT + 1,), f"V{TEXT}", data, strides=(1,))[starts]
    template, limit = _heads(count)
    digits = heads.view(np.uint8) ^ template
    if not bool((digits <= limit).all()):
        return None
    rows = digits.reshape(count, TEXT)
    marks = rows[:, MARK]
    errors = marks == _ERR
    if not bool((errors | (marks == _OUT)).all()):
        return None
    return Columns(np.frombuffer(data, np.uint8), _keys(rows), starts, ends, errors)


def _heads(count: int) -> tuple[Bytes, Bytes]:
    """_TEMPLATE and _LIMIT so many times: numpy is fast on long rows alone."""
    if count > _USUAL:
        return np.tile(_TEMPLATE, count), np.tile(_LIMIT, count)
    template, limit = _usual_heads()
    return template[: count * TEXT], limit[: count * TEXT]


@cache
def _usual_heads() -> tuple[Bytes, Bytes]:
    return np.tile(_TEMPLATE, _USUAL), np.tile(_LIMIT, _USUAL)


def _keys(rows: Bytes) -> Keys:
    """[n] of [n, STAMP or more] digits: 16 bits of the date, and two digits a byte of the time."""
    packed = np.zeros((len(rows), 8), np.uint8)
    for place, (tens, ones) in enumerate(_PAIRS, 2):
        np.left_shift(rows[:, tens], 4, out=packed[:, place])
        packed[:, place] |= rows[:, ones]
    times = packed.view(">u8").ravel().astype(np.uint64)
    dates = rows[:, :_DATE]
    return _dated(times, dates[:1] if _are_alike(dates) else dates)


def _are_alike(dates: Bytes) -> bool:
    years_and_months, days = dates[:, :8].view("<u8"), dates[:, 8:].view("<u2")
    return bool((years_and_months == years_and_months[0]).all() and (days == days[0]).all())


def _dated(times: Keys, dates: Bytes) -> Keys:
    """Before the times seven bits of the year, four of the month, five of the day. `dates`: as many
    rows of digits, or one."""
    digits = dates.astype(np.uint64).T
    years = digits[0] * 1000 + digits[1] * 100 + digits[2] * 10 + digits[3]
    # Any digits can stand there.
    months = np.minimum(digits[5] * 10 + digits[6], 15)
    days = np.minimum(digits[8] * 10 + digits[9], 31)
    within = times | (years - _FIRST_YEAR) << 57 | months << 53 | days << 48
    early, late = years < _FIRST_YEAR, years > _LAST_YEAR
    return np.where(early, years.clip(0, 1), np.where(late, _LATEST, within))
