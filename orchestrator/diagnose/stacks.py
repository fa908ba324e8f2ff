"""The stacks that Python's faulthandler prints when a rank is ended by a signal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.diagnose.tail import Tail
from orchestrator.diagnose.witness import Witness

_THREAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):$")
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+|\?\?\?) in (?P<name>.+)$')
_COLLECTIVE = re.compile(r"/torch/distributed/|/deepspeed/comm/|/torch/csrc/distributed/")
_CALL = re.compile(r'^ +File "[^"]*/torch/distributed/[^"]+", line \d+, in (?P<name>\w+)$')
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python3\.\d+/|^<")


@dataclass(frozen=True)
class Frame:
    file: str
    line: str
    name: str
    index: int
    """Line of the tail."""


def main_stack(tail: Tail | None) -> list[Frame]:
    """Frames of the main thread, innermost first: faulthandler prints it last."""
    stack: list[Frame] = []
    for index, line in enumerate(tail.lines if tail else ()):
        if _THREAD.match(line):
            stack = []
        elif found := _FRAME.match(line):
            stack.append(Frame(found["file"], found["line"], found["name"], index))
    return stack


def is_collective(stack: Sequence[Frame]) -> bool:
    """Whether it waits for other ranks."""
    return any(_COLLECTIVE.search(frame.file) for frame in stack[:6])


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
    return next((frame for frame in stack if not _LIBRARY.search(frame.file)), None)


def outside_collectives(found: Sequence[Witness]) -> list[int]:
    """Ranks that do something else while others wait for them; none unless both are seen."""
    stacks = {one.rank: stack for one in found if (stack := main_stack(one.tail))}
    inside = {rank for rank, stack in stacks.items() if is_collective(stack)}
    return sorted(set(stacks) - inside) if inside else []
