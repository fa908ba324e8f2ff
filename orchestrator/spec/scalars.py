"""What a word without quotes means.

YAML 1.2's core schema, minus every word that a YAML 1.1 reader takes for something else:
those are traps, refused with a sentence, so that a spec means the same to every reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORD_BOOL = {"yes": True, "on": True, "no": False, "off": False}
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CLOCK = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_UNDERSCORE = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
_OTHER_BASE = re.compile(r"[-+]?0(x[0-9a-fA-F_]+|b[01_]+|o[0-7]+)")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MOST_DIGITS = 18


@dataclass(frozen=True)
class Trap:
    """A word that readers of YAML disagree about. No field accepts it."""

    text: str
    meaning: str
    """What it is mistaken for, to be put behind `without quotes`."""
    instead: str | None = None
    """What to write where a number or a boolean is wanted."""


Value = None | bool | int | float | str | Trap


def resolve(text: str) -> Value:
    """The value of a plain (unquoted) scalar."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text in (text.lower(), text.upper(), text.capitalize()) and text.lower() in _WORD_BOOL:
        value = _WORD_BOOL[text.lower()]
        return Trap(text, "means true or false to some readers of YAML", str(value).lower())
    if text[0] not in "+-.0123456789":
        return text
    return _number(text)


def _number(text: str) -> Value:
    if _INT.fullmatch(text):
        if len(text.lstrip("+-")) > _MOST_DIGITS:
            return Trap(text, "is a number with more digits than ptx carries faithfully")
        return int(text)
    if _CLOCK.fullmatch(text):
        return Trap(text, f"is the number {_sexagesimal(text)} to some readers of YAML")
    if _LEADING_ZERO.fullmatch(text):
        return Trap(
            text, "is an octal number to some readers of YAML", str(int(text[:_MOST_DIGITS]))
        )
    if _FLOAT.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            return Trap(text, "is too large for a number")
        return value
    if "_" in text and _UNDERSCORE.fullmatch(text):
        return Trap(text, "is a number to some readers of YAML", text.replace("_", ""))
    if _OTHER_BASE.fullmatch(text):
        return Trap(text, "is a number to some readers of YAML and text to others")
    if _NOT_FINITE.fullmatch(text):
        return Trap(text, "is not a finite number")
    return text


def _sexagesimal(text: str) -> str:
    if len(text) > _MOST_DIGITS:
        return "in base 60"
    sign = -1 if text[0] == "-" else 1
    total = 0.0
    for part in text.lstrip("+-").replace("_", "").split(":"):
        total = total * 60 + float(part)
    return f"{sign * total:.15g}"
