"""What torch's flight recorder left: the last collectives of each rank that timed out.

Format: a pickle of plain dicts, lists, tuples, numbers and texts, version 2 of what
torch/csrc/distributed/c10d/FlightRecorder.hpp writes, in `<node folder>/collectives-<rank>`.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.diagnose.stacks import is_own
from orchestrator.diagnose.verdict import Stand
from orchestrator.runs.reading import open_file

PREFIX = "collectives-"
MOST_DUMPS = 256
MOST_BYTES = 32 << 20
_LARGEST = 1 << 63
_LONGEST_TEXT = 4096
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_BROKEN = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
    ImportError,
)
"""All that a damaged pickle is known to raise."""


@dataclass(frozen=True)
class Last:
    """The last collective that a rank began in one process group."""

    rank: int
    group: str
    number: int
    """The group's collectives are counted from 1, on every rank alike."""
    call: str
    """As all_reduce."""
    path: str
    line: int | None


class _Plain(pickle.Unpickler):
    """Nothing but plain values: a dump may be anybody's file, and a pickle can run programs."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def read_dump(path: Path) -> Mapping[str, Any] | None:
    """None where it is damaged, too large or holds anything but plain values."""
    try:
        with open_file(path) as file:
            data = file.read(MOST_BYTES + 1)
        dump = _Plain(io.BytesIO(data)).load() if len(data) <= MOST_BYTES else None
    except _BROKEN:
        return None
    return dump if isinstance(dump, dict) else None


def recorded(node_dirs: Sequence[Path]) -> list[Last]:
    """Of the ranks of these nodes that left a dump, for each of their process groups."""
    found: list[Last] = []
    for number, (rank, path) in enumerate(_dumps(node_dirs)):
        if number == MOST_DUMPS:
            break
        dump = read_dump(path)
        if dump is not None:
            found += _lasts(rank, dump)
    return found


def _dumps(node_dirs: Sequence[Path]) -> Iterator[tuple[int, Path]]:
    for folder in node_dirs:
        for path in sorted(folder.glob(f"{PREFIX}*")):
            rank = path.name.removeprefix(PREFIX)
            if _NUMBER.fullmatch(rank) and path.is_file():
                yield int(rank), path


def _lasts(rank: int, dump: Mapping[str, Any]) -> list[Last]:
    entries = dump.get("entries")
    last: dict[str, Last] = {}
    for entry in entries if isinstance(entries, list) else ():
        one = _last(rank, entry) if isinstance(entry, dict) else None
        if one is not None and one.number >= last.get(one.group, one).number:
            last[one.group] = one
    return list(last.values())


def _last(rank: int, entry: Mapping[str, Any]) -> Last | None:
    number, group = entry.get("collective_seq_id"), entry.get("process_group")
    if not isinstance(number, int) or not 0 <= number < _LARGEST or entry.get("is_p2p"):
        return None
    name = _text(group[0] if isinstance(group, tuple) and group else entry.get("pg_id"))
    call = _text(entry.get("profiling_name")).rpartition(":")[2]
    frames = entry.get("frames")
    rows = [row for row in frames if isinstance(row, dict)] if isinstance(frames, list) else []
    own = next((row for row in rows if is_own(_text(row.get("filename")))), {})
    line = own.get("line")
    line = line if isinstance(line, int) and 0 <= line < _LARGEST else None
    return Last(rank, name, number, call, _text(own.get("filename")), line)


def _text(value: object) -> str:
    """Not of lists: a few bytes of pickle make one whose text fills the memory."""
    if isinstance(value, int):
        return str(value) if abs(value) < _LARGEST else ""
    return value[:_LONGEST_TEXT] if isinstance(value, str) else ""


def group_that_stopped(lasts: Sequence[Last]) -> list[Last]:
    """The group of which one rank began fewer collectives than another, or another one; of
    several the one with most ranks. [] where all groups were in step."""
    groups: dict[str, list[Last]] = {}
    for one in lasts:
        groups.setdefault(one.group, []).append(one)
    uneven = [rows for rows in groups.values() if len({(one.number, one.call) for one in rows}) > 1]
    return max(uneven, key=len, default=[])


def behind(lasts: Sequence[Last]) -> list[int]:
    """Ranks that began fewer collectives than others of their group; [] where none did."""
    group = group_that_stopped(lasts)
    numbers = {one.number for one in group}
    return sorted(one.rank for one in group if one.number == min(numbers) < max(numbers))


def stands(lasts: Sequence[Last], stopped: Sequence[int]) -> tuple[Stand, ...]:
    """Ranks by their last collective in the group that stopped; those that stopped first."""
    groups: dict[tuple[int, str, str, int | None], list[int]] = {}
    for one in group_that_stopped(lasts):
        groups.setdefault((one.number, one.call, one.path, one.line), []).append(one.rank)
    rows = [
        Stand(
            tuple(sorted(ranks)),
            f"{call} number {number}",
            path,
            line,
            not set(stopped).isdisjoint(ranks),
        )
        for (number, call, path, line), ranks in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: (not row.stopped, -len(row.ranks), row.ranks)))
