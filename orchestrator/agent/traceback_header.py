"""The line with which a Python traceback begins."""

from __future__ import annotations

import re

_SAYS = "Traceback (most recent call last):"
_ALONE = re.compile(r"\s*(?:[+|]\s*)*(?:Exception Group )?")
_TQDM = re.compile(r"%\||it/s|s/it")
_RANK = re.compile(r"\[(?:rank|default)\d+\]: ?$")
"""torch's excepthook puts this before each line, also behind a bar."""
_FRAME = re.compile(r'\s+(?:\|\s+)?File "')


def begins_traceback(line: str) -> bool:
    """Also behind a progress bar that was open: a bar ends no line."""
    if not line.endswith(_SAYS):
        return False
    before = line[: -len(_SAYS)]
    return bool(_ALONE.fullmatch(before) or _TQDM.search(before)) or _is_bar(before)


def begins_whole_traceback(line: str, below: str) -> bool:
    """The same, told with the line below it: where each line has a prefix of its own, as behind
    Ray's, the frames do not lie where they are looked for."""
    if not begins_traceback(line):
        return False
    return bool(_ALONE.fullmatch(line[: -len(_SAYS)]) or _FRAME.match(below))


def _is_bar(before: str) -> bool:
    """Not what names the traceback: a logger's `ERROR:root: `, torch's `Original `."""
    bar = _RANK.sub("", before.removesuffix("Exception Group ")).rstrip()
    return bool(bar) and not bar.endswith((":", "Original"))
