"""Logs of random lines, and the ways in which they are merged: the careful and the fast ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import strategies as st

from orchestrator.logs import composed
from orchestrator.logs.composed import merge_composed
from orchestrator.logs.line import stamp_of
from orchestrator.logs.merge import merge
from orchestrator.logs.output import Output
from orchestrator.logs.parallel import write_slices
from orchestrator.logs.reader import LogReader
from orchestrator.logs.select import RankLog
from orchestrator.logs.skew import Shift
from orchestrator.logs.source import FileSource
from orchestrator.logs.text import TextLines

START = 1_795_000_000

line = st.one_of(
    st.tuples(
        st.integers(-2, 3),
        st.sampled_from("oeoeOE"),
        st.sampled_from(
            ["step 1", "", "Z o inside", "Z e ", "\x1b[2Jbar", "\rbar", "\x1f", "\u00e9", "a"]
        ),
    ),
    st.sampled_from(
        [
            b"",
            b"foreign",
            b"\xff\xfe",
            b"2026-11-21T00:47:11.123456Z x no",
            b"Z o ",
            # A reader that is in a hurry takes these for stamped.
            b"2026-11-20T00:47:11.12345xZ e seems",
            b"2026-11-20 00:47:11.123456Z o seems",
            b"2\xc3\xa926-11-20T00:47:11.12345Z o seems",
            b"2\xff26-11-20T00:47:11.123456Z o seems",
        ]
    ),
)  # fmt: skip
Lines = list[tuple[int, str, str] | bytes]


def log(lines: Lines, rank: int = 0, torn: bytes = b"") -> bytes:
    """Of lines with one time, those of the lower rank come first."""
    data, at = b"", 0
    for one in lines:
        if isinstance(one, bytes):
            data += one + b"\n"
        else:
            at += one[0]
            data += f"{stamp_of(START + at + rank // 2 / 1000)} {one[1]} {one[2]}\n".encode()
    return data + torn


def logs_in(folder: Path, contents: list[bytes], *, parts: int = 1) -> list[RankLog]:
    found = []
    for rank, data in enumerate(contents):
        path = folder / f"rank-{rank:05d}.log"
        lines = data.splitlines(True)
        size = -(-len(lines) // parts)
        path.write_bytes(b"".join(lines[:size]))
        for part in range(1, parts):
            more = path.with_name(f"rank-{rank:05d}.{part:04d}.log")
            more.write_bytes(b"".join(lines[part * size : (part + 1) * size]))
        found.append(RankLog(0, rank // 2, rank, path))
    return found


def contents_of(
    count: int, files: int, text: Callable[[int], str], seconds: float = 0.01
) -> list[bytes]:
    return [
        "".join(
            f"{stamp_of(START + i * seconds)} {'oe'[i % 3 == 0]} {i} {text(i)}\n"
            for i in range(rank, count, files)
        ).encode()
        for rank in range(files)
    ]


def careful(logs: list[RankLog], shift: Shift | None = None) -> list[str]:
    lines = TextLines(logs, colour=False)
    found = merge(readers(logs, shift), budget=1)
    return "".join(lines.render(batch) for batch in found).splitlines(True)


def readers(logs: list[RankLog], shift: Shift | None = None) -> list[LogReader]:
    return [LogReader(log.path, i, shift=shift) for i, log in enumerate(logs)]


def fast(logs: list[RankLog], shift: Shift | None = None) -> list[str]:
    lines = TextLines(logs, colour=False)
    sources = [FileSource(one, lines, Output(1)) for one in readers(logs, shift)]
    found = merge_composed(sources, budget=1)
    return b"".join(map(bytes, found)).decode().splitlines(True)


def sliced(
    logs: list[RankLog], size: int = 150_000, count: int = 3, shift: Shift | None = None
) -> list[str]:
    """Written by several processes."""
    with tempfile.TemporaryFile() as file:
        output = Output(file.fileno(), "utf-8", "strict")
        lines = TextLines(logs, colour=False)
        done = write_slices(readers(logs, shift), lines, output, count=count, size=size)
        assert done
        file.seek(0)
        return file.read().decode().splitlines(True)


@contextmanager
def parts_of(size: int) -> Iterator[None]:
    """Logs are read in parts of so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composed, "_SMALLEST", size)
        patch.setattr(composed, "_LARGEST", size)
        yield


part_sizes = st.sampled_from([1, 40, 100, 300, 8192])
files = st.lists(
    st.tuples(st.lists(line, max_size=30), st.sampled_from([b"", b"torn"])), min_size=1, max_size=4
)
