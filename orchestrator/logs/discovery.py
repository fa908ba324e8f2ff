"""Names of rank logs on disk: attempts, node folders, and the parts of one rank's log.

A rank's log is `rank-00000.log`; where it rotates, `rank-00000.0001.log`, `.0002.log` and so on
follow it, each written only after the one before. Names never change, so an offset stays true.
A part that the agent has compressed bears `.gz` as well. With a cap the middle ones may be gone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout

_ATTEMPT = re.compile(r"\d{3,9}", re.ASCII)
_NODE = re.compile(r"node-(\d{4,9})", re.ASCII)
_PART = re.compile(r"rank-(\d{5,9})(?:\.(\d{4,9}))?\.log(\.gz)?", re.ASCII)


class PartName(NamedTuple):
    """Sorts by rank, then age; a plain file before its compressed copy."""

    rank: int
    number: int
    compressed: bool

    @classmethod
    def of(cls, name: str) -> PartName | None:
        found = _PART.fullmatch(name)
        return found and cls(int(found[1]), int(found[2] or 0), found[3] is not None)

    @property
    def text(self) -> str:
        number = f".{self.number:04d}" if self.number else ""
        return f"rank-{self.rank:05d}{number}.log{'.gz' if self.compressed else ''}"


def parts(node_dir: Path, rank: int) -> tuple[Path, ...]:
    """The files of one rank's log, oldest first; () where it has none.

    Of a part that is there plain and compressed (the agent is at it) the plain one. Raises
    UserError for a folder that cannot be read.
    """
    return parts_of(node_dir, names(node_dir), rank)


def parts_of(node_dir: Path, listing: Iterable[str], rank: int) -> tuple[Path, ...]:
    """As `parts`, from the names in `node_dir`."""
    found = sorted(part for name in listing if (part := PartName.of(name)) and part.rank == rank)
    first = {part.number: part for part in reversed(found)}
    return tuple(node_dir / first[number].text for number in sorted(first))


def number_of(path: Path) -> int:
    """Which part of its log a file is, from 0."""
    part = PartName.of(path.name)
    return part.number if part else 0


def attempts(layout: RunLayout) -> list[int]:
    folder = layout.attempt(0).parent
    return sorted(int(name) for name in names(folder) if _ATTEMPT.fullmatch(name))


def node_folders(attempt: Path) -> list[Path]:
    return [attempt / name for name in names(attempt) if _NODE.fullmatch(name)]


def node_number(folder: Path) -> int:
    return int(folder.name.removeprefix("node-"))


def ranks(listing: Iterable[str]) -> list[int]:
    """Ranks that have a log among the names of a node folder."""
    return sorted({part.rank for name in listing if (part := PartName.of(name))})


def names(folder: Path) -> list[str]:
    """[] for a folder that is not there (yet). Raises UserError."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - hundreds of nodes: names alone are cheap
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be read: {error.strerror}.",
            hint="`share: group` in a spec lets a group read its run.",
        ) from error
