"""A page that is redrawn in place on a terminal, which afterwards is as it was."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType

# xterm's second screen, no cursor, no wrapping: a page that is wider is cut, and stays a page.
_OPEN = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_CLOSE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class FullScreen:
    """On stdout."""

    def __enter__(self) -> FullScreen:
        sys.stdout.write(_OPEN)
        sys.stdout.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout.write(_CLOSE)
        sys.stdout.flush()

    def show(self, lines: Sequence[str]) -> None:
        """One write a page, over the old one: nothing flickers. A line is cleared before it is
        written: after one as wide as the terminal the cursor stands on its last character."""
        *above, last = lines or [""]
        page = "".join(f"{_REST_OF_LINE}{line}\r\n" for line in above)
        sys.stdout.write(f"{_HOME}{page}{_BELOW}{last}")
        sys.stdout.flush()
