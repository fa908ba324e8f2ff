"""What of a log line may reach a terminal: its text and its colours, nothing that acts.

A rank can print anything. Sequences that move the cursor, clear, set the title or the clipboard
are left out, as are control characters; the rank's log keeps every byte.
"""

from __future__ import annotations

import re

# ECMA-48: CSI, then the string sequences (OSC, DCS, SOS, PM, APC) up to their terminator, then
# two-character escapes; a string that never ends is cut at the end of the line.
_ESCAPE = re.compile(
    r"(?P<sgr>\x1b\[[0-9;:]*m)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
# Bidirectional overrides reorder what stands on the screen, our own prefix included.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_SUSPECT = re.compile(_CONTROL.pattern[:-1] + r"\ud800-\udfff]")
# Half a character stands for no byte: it comes from JSON that somebody else wrote.
_HALF = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")
RESET = "\x1b[0m"


def plain(text: str) -> str:
    """The text alone, bytes that are not UTF-8 as `\\xff`."""
    if not _SUSPECT.search(text):
        return text
    return _CONTROL.sub("", _ESCAPE.sub("", decoded(text)))


def coloured(text: str) -> str:
    """The text with its own colours, which end where it ends."""
    if not _SUSPECT.search(text):
        return text
    pieces, colours, end = [], False, 0
    text = decoded(text)
    for escape in _ESCAPE.finditer(text):
        pieces.append(_CONTROL.sub("", text[end : escape.start()]))
        if escape["sgr"]:
            pieces.append(escape["sgr"])
            colours = True
        end = escape.end()
    pieces.append(_CONTROL.sub("", text[end:]))
    return "".join(pieces) + (RESET if colours else "")


def decoded(text: str) -> str:
    """Bytes that are not UTF-8 as `\\xff`."""
    text = _HALF.sub("\ufffd", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
