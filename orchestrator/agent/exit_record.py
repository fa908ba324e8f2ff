"""How a rank ended, as a fact on disk: rank-NNNNN.exit.json."""

from __future__ import annotations

import json
import os
import re

_RANK_PREFIX = re.compile(r"^\[rank\d+\]:[ ]?")
"""torch's excepthook puts this before each line once torch.distributed is initialised."""
# It stands behind a progress bar where that was open: a bar ends no line.
_HEADER = re.compile(
    r"^(?:.*(?:%\||it/s|s/it).*|\s*(?:[+|] )?)(?:Exception Group )?"
    r"Traceback \(most recent call last\):$"
)
_EXCEPTION = re.compile(r"^(?P<type>[^\W\d][\w.]*)(?:: (?P<message>.*))?$")
_NAMED_LIKE_ONE = re.compile(r"(?:Error|Exception|Interrupt|Exit)$")
_CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_MESSAGE_LINES = 20
_MESSAGE_CHARACTERS = 4000


def find_exception(stderr: str) -> dict[str, str] | None:
    """Type and message of the last Python traceback in this text, None where there is none."""
    lines = [_RANK_PREFIX.sub("", line.rstrip("\r")) for line in stderr.split("\n")]
    start = max((i for i, line in enumerate(lines) if _HEADER.match(line)), default=None)
    if start is not None:
        for i in range(start + 1, len(lines)):
            if lines[i][:1] not in ("", " ", "\t"):
                return _parse(lines[i:])
    return _without_header(lines)


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
