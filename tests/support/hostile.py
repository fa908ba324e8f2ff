"""What may lie where a file of a run folder should, and every command that reads run folders."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.cli.main import main

LIMIT = 60
"""Seconds after which a command hangs."""
PATIENCE = 3
"""Seconds until Ctrl-C."""
DEEP = b'{"v": 1, "t": 1, "type": "intent", "x": ' + b"[" * 20_000
NOISE = random.Random(7).randbytes(20_000)  # noqa: S311 - noise, no secret
LONG_LINE = json.dumps({"v": 1, "t": 1.0, "type": "intent", "x": "y" * 10_000_000}).encode() + b"\n"
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "\x1b[2J\x00\ud800" + "x" * 300,
    [],
    [[[None]]],
    {"": {}},
)
KEPT = ("v", "t", "type")
"""Wrong everywhere, a line is no event at all: one mutation of its own."""

TEXT: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("status", "RUN"),
    ("why", "RUN"),
    ("logs", "RUN"),
    ("logs", "RUN", "--first-error"),
    ("wait", "RUN", "--timeout", "0.01s"),
    ("checkpoints", "list", "RUN"),
    ("checkpoints", "verify", "RUN"),
    ("resume", "RUN", "--dry-run"),
    ("top", "RUN", "--once"),
    ("metrics", "RUN", "--csv"),
    ("plot", "RUN"),
    ("logs", "RUN", "--dedupe", "--level", "WARNING"),
    ("logs", "RUN", "--raw", "--rank", "0"),
    ("metrics", "RUN", "--prometheus", "-"),
    ("plot", "RUN", "--html", "-"),
    ("cancel", "RUN"),
)
WATCHING: tuple[tuple[str, ...], ...] = (
    ("logs", "RUN", "--follow"),
    ("status", "RUN", "--watch", "--every", "1s"),
)
"""They end with the run; where its end is not to be read any more, a person's Ctrl-C ends them."""
JSON: tuple[tuple[str, ...], ...] = (
    ("status", "--json"),
    ("status", "RUN", "--json"),
    ("why", "RUN", "--json"),
    ("logs", "RUN", "--json", "--attempt", "all"),
    ("checkpoints", "list", "RUN", "--json"),
    ("top", "RUN", "--json"),
    ("metrics", "RUN", "--json"),
    ("plot", "RUN", "--json"),
)
COMMANDS = (*TEXT, *JSON, *WATCHING)
UNREAD_BY_RESUME = ("attempts", "model-description.000")
"""It is by far the slowest."""


class Hung(BaseException):
    """Not an Exception: nothing on the way may take it for one of its own."""


def look(run: Path, argv: tuple[str, ...]) -> int:
    """The exit code of one command. Whatever it raises comes out, and Hung where it hangs."""
    words = [str(run) if word == "RUN" else word for word in argv]
    if "RUN" not in argv:
        words += ["--runs", str(run.parent)]
    waits = argv in WATCHING
    with _alarm(PATIENCE if waits else LIMIT, KeyboardInterrupt() if waits else Hung(argv)):
        return main(words)


@contextmanager
def _alarm(seconds: int, error: BaseException) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


Mutation = Callable[[Path, bytes], None]


def _bytes(data: bytes) -> Mutation:
    return lambda path, _: _put(path, data)


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _cut(path: Path, data: bytes) -> None:
    path.write_bytes(data[: len(data) // 2])


def _noise_inside(path: Path, data: bytes) -> None:
    middle = len(data) // 2
    path.write_bytes(data[:middle] + NOISE[:500] + b"\n" + data[middle:])


def _large(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with path.open("r+b") as file:
        file.truncate(50 << 20)  # zeros: as a disk leaves a file after a crash


def _newer(path: Path, data: bytes) -> None:
    path.write_bytes(data.replace(b'"v": 1', b'"v": 2').replace(b'"v":1', b'"v":2'))


def _replaced(make: Callable[[Path], None]) -> Mutation:
    def mutate(path: Path, _: bytes) -> None:
        path.unlink()
        make(path)

    return mutate


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _fields(wrong: Any) -> Mutation:
    def mutate(path: Path, data: bytes) -> None:
        lines = data.split(b"\n")
        path.write_bytes(b"\n".join(_with(line, wrong) for line in lines))

    return mutate


def _with(line: bytes, wrong: Any) -> bytes:
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict):
        return line
    told = {key: value if key in KEPT else wrong for key, value in fields.items()}
    return json.dumps(told).encode()


def _whole_json(path: Path, data: bytes) -> None:
    """One JSON text over many lines becomes one on one line, so that fields can be put in."""
    try:
        path.write_bytes(json.dumps(json.loads(data)).encode() + b"\n")
    except ValueError:
        path.write_bytes(data)


FILES: dict[str, Mutation] = {
    "missing": lambda path, _: path.unlink(),
    "empty": _bytes(b""),
    "cut": _cut,
    "noise": _bytes(NOISE),
    "noise inside": _noise_inside,
    "50 MB": _large,
    "newer version": _newer,
    "deep": _bytes(DEEP + b"\n"),
    "a list": _bytes(b"[1, 2]\n"),
    "a line of 10 MB": _bytes(LONG_LINE),
    "folder": _replaced(Path.mkdir),
    "fifo": _replaced(os.mkfifo),
    "loop": _replaced(_loop),
    "dangling": _replaced(lambda path: path.symlink_to("/nowhere/at/all")),
    "device": _replaced(lambda path: path.symlink_to("/dev/zero")),
}
FIELDS: dict[str, Mutation] = {f"every field {wrong!r:.20}": _fields(wrong) for wrong in WRONG}
FOLDERS: dict[str, Callable[[Path], None]] = {
    "missing": lambda _: None,
    "file": lambda path: _put(path, b"x"),
    "fifo": os.mkfifo,
    "loop": _loop,
    "empty": Path.mkdir,
}


def places(run: Path) -> tuple[list[Path], list[Path]]:
    """Every file and every folder of a run, relative to it."""
    found = sorted(path.relative_to(run) for path in run.rglob("*"))
    return (
        [path for path in found if (run / path).is_file()],
        [path for path in found if (run / path).is_dir()],
    )


def mutate_file(run: Path, place: Path, name: str) -> None:
    path = run / place
    data = path.read_bytes()
    if name in FIELDS:
        _whole_json(path, data)
        FIELDS[name](path, path.read_bytes())
    else:
        FILES[name](path, data)


def mutate_folder(run: Path, place: Path, name: str) -> None:
    shutil.rmtree(run / place)
    FOLDERS[name](run / place)


def fresh(pristine: Path, run: Path) -> None:
    """Put the run back as it was."""
    if run.exists():
        shutil.rmtree(run)
    shutil.copytree(pristine, run, symlinks=True)
