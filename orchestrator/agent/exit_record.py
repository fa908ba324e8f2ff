"""How a rank ended, as a fact on disk: rank-NNNNN.exit.json."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from itertools import takewhile

from orchestrator.agent.traceback_header import begins_traceback, begins_whole_traceback

_RANK_PREFIX = re.compile(r"^\[rank\d+\]:[ ]?")
"""torch's excepthook puts this before each line once torch.distributed is initialised."""
# What a destructor raised while the interpreter left: it ends nothing.
_IGNORED = re.compile(r"^Exception ignored (?:in|while)\b")
# What an exception group prints lies behind a margin: `  | ` or, where something begins, `  + `.
_GROUP = re.compile(r"\+ Exception Group Traceback \(most recent call last\):$")
_MARGIN = re.compile(r"^ +[|+] ?")
_END = re.compile(r"^ +\+-{20,}$")
_SUB = re.compile(r"^ *\+-\+-+ 1 -+$")
_SUB_ENDS = re.compile(r"^ *\+-+(?: (?:\d+|\.\.\.) -+)?$")
_EXCEPTION = re.compile(r"^(?P<type>[^\W\d][\w.]*)(?:: (?P<message>.*))?$")
_NAMED_LIKE_ONE = re.compile(r"(?:Error|Exception|Interrupt|Exit)$")
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_DEPTH = 10
"""Groups within groups: Python prints no more."""
_MESSAGE_LINES = 20
_MESSAGE_CHARACTERS = 4000


def find_exception(stderr: str) -> dict[str, str] | None:
    """Type and message of the last Python traceback in this text, None where there is none. Of a
    group the message goes on with its first exception."""
    lines = [_RANK_PREFIX.sub("", line.rstrip("\r")) for line in stderr.split("\n")]
    lines = without_ignored(lines)
    headers = traceback_headers(lines)
    if headers:
        start = headers[-1]
        if is_group(lines[start]):
            return _of_group(lines[start + 1 :])
        for i in range(start + 1, len(lines)):
            if lines[i][:1] not in ("", " ", "\t"):
                return _parse(lines[i:])
    return _without_header(lines)


def traceback_headers(lines: Sequence[str]) -> list[int]:
    """Where tracebacks begin; those inside of a group's are parts of it, and those of exceptions
    that Python ignored are none."""
    found: list[int] = []
    after = 0
    for i, line in enumerate(lines):
        below = lines[i + 1] if i + 1 < len(lines) else ""
        if i >= after and begins_whole_traceback(line, below) and not _ignored(lines, i):
            found.append(i)
            if is_group(line):
                after = i + 1 + len(_block(lines[i + 1 :]))
    return found


def _ignored(lines: Sequence[str], header: int) -> bool:
    return header > 0 and bool(_IGNORED.match(lines[header - 1]))


def without_ignored(lines: Sequence[str]) -> list[str]:
    """Without what Python says of exceptions that it ignored."""
    ignored = ignored_lines(lines)
    return [line for i, line in enumerate(lines) if i not in ignored]


def ignored_lines(lines: Sequence[str]) -> set[int]:
    """Which of them are what Python says of exceptions that it ignored: its word, the frames, and
    the line that names the exception."""
    found: set[int] = set()
    for i, line in enumerate(lines):
        if i in found or not _IGNORED.match(line):
            continue
        below = "".join(lines[i + 1 : i + 2])
        if begins_traceback(below):
            rest = range(i + 2, len(lines))
            last = next((j for j in rest if not lines[j].startswith(" ")), len(lines) - 1)
            found.update(range(i, last + 1))
        elif _names_one(below):
            found.update((i, i + 1))
    return found


def _names_one(line: str) -> bool:
    match = _EXCEPTION.match(line)
    return match is not None and bool(_NAMED_LIKE_ONE.search(match["type"]))


def is_group(header: str) -> bool:
    """Whether what follows this line lies behind a margin; of a group whose beginning is lost the
    parts are left."""
    return bool(_GROUP.search(header) or _MARGIN.match(header))


def _block(lines: Sequence[str]) -> Sequence[str]:
    """What a group prints below its header. A message of several lines has no margin."""
    for i, line in enumerate(lines):
        if _END.match(line) and not any(map(_MARGIN.match, lines[i + 1 : i + 2])):
            return lines[: i + 1]
    return list(takewhile(_MARGIN.match, lines))


def group_parts(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a group prints below its header: the lines of its own, without their margin, and those
    of the first exception in it, with theirs."""
    return _parts(_block(lines))


def _parts(block: Sequence[str]) -> tuple[list[str], list[str]]:
    own = list(takewhile(lambda line: not _SUB.match(line) and not _SUB_ENDS.match(line), block))
    rest = block[len(own) :]
    first = rest[1:] if rest and _SUB.match(rest[0]) else []
    first = list(takewhile(lambda line: not _SUB_ENDS.match(line), first))
    return [unmargined(line) for line in own], first


def unmargined(line: str) -> str:
    """A line of a group as it would stand in a traceback of its own."""
    return _MARGIN.sub("", line)


def exception_line(lines: Sequence[str]) -> int | None:
    """Which of a group's own lines names its type: of a chain the last."""
    start = max((i for i, line in enumerate(lines) if begins_traceback(line)), default=-1)
    rest = range(start + 1, len(lines))
    return next((i for i in rest if lines[i][:1] not in ("", " ", "\t")), None)


def _of_group(lines: Sequence[str]) -> dict[str, str] | None:
    named: list[dict[str, str]] = []
    own, rest = group_parts(lines)
    while len(named) < _DEPTH:
        start = exception_line(own)
        found = None if start is None else _parse(own[start:])
        if found is None:
            break
        named.append(found)
        own, rest = _parts(rest)
    if not named:
        return None
    said = [f"{one['type']}: {one['message']}".removesuffix(": ") for one in named[1:]]
    message = ": ".join([named[0]["message"], *said])
    return {"type": named[0]["type"], "message": message[:_MESSAGE_CHARACTERS]}


def _without_header(lines: list[str]) -> dict[str, str] | None:
    """A SyntaxError of the script itself comes without the word Traceback."""
    for i in range(len(lines) - 1, -1, -1):
        match = _EXCEPTION.match(lines[i])
        if match and match["message"] and _NAMED_LIKE_ONE.search(match["type"]):
            indented = i > 0 and lines[i - 1].startswith("  ")
            return _parse(lines[i:]) if indented else None
    return None


def _parse(lines: list[str]) -> dict[str, str] | None:
    match = _EXCEPTION.match(lines[0])
    if match is None:
        return None
    message = [match["message"] or ""]
    for line in lines[1:_MESSAGE_LINES]:
        if not line or line in _CHAINED or "\r" in line:  # a bar that is drawn once more
            break
        message.append(line)
    return {"type": match["type"], "message": "\n".join(message)[:_MESSAGE_CHARACTERS]}


def write_record(path: str, record: dict[str, object], mode: int) -> None:
    """Put the record at `path` by rename. Raises OSError."""
    data = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    scratch = f"{path}.{os.getpid()}"
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(scratch, path)  # noqa: PTH105 - see the package's docstring
