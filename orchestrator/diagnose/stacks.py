"""The stacks that Python's faulthandler prints when a rank is ended by a signal."""

from __future__ import annotations

import linecache
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.diagnose.tail import Tail

Doing = Literal["waits", "may-wait", "elsewhere"]
"""For other ranks, as far as its innermost frame tells."""
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):$")
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+|\?\?\?) in (?P<name>.+)$')
_COLLECTIVE = re.compile(
    r"/torch/distributed/(?!checkpoint/|elastic/|run\.py|launch)|/deepspeed/comm/"
    r"|/torch/csrc/distributed/"
)
_WRAPPER = re.compile(r"/torch/distributed/c10d_logger\.py$")
_BACKWARD = re.compile(r"/torch/autograd/(?:graph|__init__|function)\.py$")
_MAY_WAIT = re.compile(r"\.(?:wait|item|tolist|cpu|numpy|backward|barrier)\(|synchronize\(|\ball_")
"""Lines of code that come back only once other ranks have done their part."""
_LONGEST_SCRIPT = 4 << 20
_CALL = re.compile(r'^ +File "[^"]*/torch/distributed/[^"]+", line \d+, in (?P<name>\w+)$')
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python3\.\d+/|^<")


@dataclass(frozen=True)
class Frame:
    file: str
    line: str
    name: str
    index: int
    """Line of the tail."""


@dataclass(frozen=True)
class Place:
    """Where one rank stood."""

    doing: Doing
    call: str
    """The innermost function."""
    own: Frame
    """The innermost frame of the person's own code; where there is none, of any."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.call, self.own.file, self.own.line


def main_stack(tail: Tail | None) -> list[Frame]:
    """Frames of the main thread, innermost first: faulthandler prints it last."""
    stack: list[Frame] = []
    for index, line in enumerate(tail.lines if tail else ()):
        if _THREAD.match(line):
            stack = []
        elif found := _FRAME.match(line):
            stack.append(Frame(found["file"], found["line"], found["name"], index))
    return stack


def place(tail: Tail | None) -> Place | None:
    """None where the log has no stack."""
    stack = [frame for frame in main_stack(tail) if not _WRAPPER.search(frame.file)]
    if not stack:
        return None
    return Place(_doing(stack[0]), _call(stack[0]), own_frame(stack) or stack[0])


def _doing(inner: Frame) -> Doing:
    if _COLLECTIVE.search(inner.file):
        return "waits"
    if _BACKWARD.search(inner.file):
        return "may-wait"
    return "may-wait" if _MAY_WAIT.search(_code(inner)) else "elsewhere"


def _code(frame: Frame) -> str:
    """The line itself, where the script can be read here. A log may name any file."""
    try:
        found = Path(frame.file).stat()
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(found.st_mode) or found.st_size > _LONGEST_SCRIPT:
        return ""
    return linecache.getline(frame.file, int(frame.line)) if frame.line.isdecimal() else ""


def _call(inner: Frame) -> str:
    return "backward" if inner.name == "_engine_run_backward" else inner.name


def collective_call(tail: Tail | None) -> str:
    """The function of torch.distributed in which the last traceback of a log ended, or ""."""
    call = ""
    for line in tail.lines[tail.chain() or 0 :] if tail else ():
        found = _CALL.match(line)
        if found and found["name"] not in ("wrapper", "func_wrapper", "_wrapper"):
            call = call or found["name"]
    return call


def own_frame(stack: Sequence[Frame]) -> Frame | None:
    """The innermost frame of the person's own code."""
    return next((frame for frame in stack if is_own(frame.file)), None)


def is_own(path: str) -> bool:
    """Whether a file is neither Python's nor of an installed package."""
    return not _LIBRARY.search(path)


def stopped_ranks(places: Mapping[int, Place]) -> list[int]:
    """Ranks that others wait for, the likeliest first; none where that cannot be told.

    Those that do something else while others wait; where all may be waiting, those of them that
    are not in a collective; else those that stand where fewer than half do.
    """
    by = {doing: [rank for rank, one in places.items() if one.doing == doing] for doing in _DOINGS}
    if by["elsewhere"] and (by["waits"] or by["may-wait"]):
        return _rarest_first(by["elsewhere"], places)
    if by["may-wait"] and by["waits"]:
        return _rarest_first(by["may-wait"], places)
    groups = grouped(places)
    if len(groups) > 1 and 2 * len(groups[0]) > len(places):
        return [rank for group in reversed(groups[1:]) for rank in group]
    return []


_DOINGS: tuple[Doing, ...] = ("waits", "may-wait", "elsewhere")


def grouped(places: Mapping[int, Place]) -> list[list[int]]:
    """Ranks that stood at the same place together; the most first."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for rank in sorted(places):
        groups.setdefault(places[rank].key, []).append(rank)
    return sorted(groups.values(), key=lambda ranks: (-len(ranks), ranks))


def _rarest_first(ranks: Sequence[int], places: Mapping[int, Place]) -> list[int]:
    groups = grouped({rank: places[rank] for rank in ranks})
    return [rank for group in sorted(groups, key=lambda one: (len(one), one)) for rank in group]
