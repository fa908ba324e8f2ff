"""How values and names are shown to a person, and which name they may have meant."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

_LONGEST_SHOWN = 60
# difflib is quadratic in the length of a word; nobody mistypes a name of this length.
_LONGEST_GUESSED = 64
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    """`text` with everything that a terminal would act upon escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape", "surrogatepass").decode("ascii")
        if unicodedata.category(char) in _UNPRINTABLE
        else char
        for char in text
    )


def shown(text: str) -> str:
    """`text` in double quotes, printable, cut to a length that fits a sentence."""
    cut = text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
    return '"' + visible(cut).replace('"', '\\"') + '"'


def listed(words: Sequence[str], last: str = "or") -> str:
    """`a`, `a or b`, `a, b or c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that looks most like `word`, if one does; dashes and case do not count."""
    if len(word) > _LONGEST_GUESSED:
        return None
    import difflib  # only a mistake needs it

    folded = {_fold(candidate): candidate for candidate in candidates}
    match = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[match[0]] if match else None


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")
