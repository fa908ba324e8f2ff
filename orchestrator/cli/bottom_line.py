"""One line that is redrawn at the bottom of the terminal, below lines that scroll past."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_ERASE = "\r\x1b[K"
# Without wrapping, a line that a resized terminal has no room for is cut and stays one line.
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"


class BottomLine:
    """On stderr where that is a terminal that can redraw a line; otherwise it shows nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._shown = ""
        self.live = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    @property
    def width(self) -> int:
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            columns = 0
        return (columns or 80) - 1

    @property
    def unicode(self) -> bool:
        return (self._stream.encoding or "").lower().replace("-", "") == "utf8"

    def show(self, text: str) -> None:
        if self.live and text != self._shown:
            self._stream.write(f"{_ERASE}{_NO_WRAP}{text}{_WRAP}")
            self._stream.flush()
            self._shown = text

    def clear(self) -> None:
        """Before anything else is written, to stdout or stderr: both may be this terminal."""
        if self._shown:
            self._stream.write(_ERASE)
            self._stream.flush()
            self._shown = ""
