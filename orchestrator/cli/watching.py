"""Showing the same thing again and again, in place, until Ctrl-C."""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Callable

from orchestrator.cli.full_screen import FullScreen
from orchestrator.cli.output import emit

_HEAD = 2
_STEP = 0.25
"""Seconds between two looks at the size of the window."""


def redraws() -> bool:
    """Whether stdout is a terminal that can."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def rows_of_screen() -> int:
    """Lines that a picture may have."""
    return max(1, shutil.get_terminal_size().lines - _HEAD)


def watch(picture: Callable[[], tuple[str, bool]], seconds: float) -> None:
    """Show what `picture` makes, anew every `seconds`; it also says whether that was the last one.

    On a terminal in place, and at the end below the prompt; elsewhere one after the other.
    Ctrl-C comes out as KeyboardInterrupt, with the terminal as it was.
    """
    if not redraws():
        while True:
            text, last = picture()
            emit(text)
            sys.stdout.flush()
            if last:
                return
            pause(seconds)
    text = ""
    try:
        with FullScreen() as screen:
            while True:
                text, last = picture()
                screen.show(_page(text, seconds))
                if last:
                    break
                _wait(screen, text, seconds)
    finally:
        if text:
            emit(text)


def pause(seconds: float) -> None:
    """Until the next look. Raises BrokenPipeError as soon as nobody reads stdout any more, since a
    write that would tell may be half a minute away."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always told
    except (OSError, ValueError):  # a stdout without a descriptor
        time.sleep(seconds)
        return
    if poll.poll(seconds * 1000):
        raise BrokenPipeError


def _page(text: str, seconds: float) -> list[str]:
    room = rows_of_screen()
    lines = text.splitlines()
    if len(lines) > room:
        lines = [*lines[: room - 1], f"… and {len(lines) - room + 1} more lines"]
    return [f"{time.strftime('%H:%M:%S')}, every {seconds:g} s; Ctrl-C ends this", "", *lines]


def _wait(screen: FullScreen, text: str, seconds: float) -> None:
    """Until the next look; a window of another size is filled at once."""
    until, size = time.monotonic() + seconds, shutil.get_terminal_size()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(_STEP, left))
        if shutil.get_terminal_size() != size:
            size = shutil.get_terminal_size()
            screen.show(_page(text, seconds))
