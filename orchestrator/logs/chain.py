"""The parts of one rank's log, one after the other."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from orchestrator.logs.discovery import PartName, number_of, parts
from orchestrator.logs.stored import Stored


class Chain:
    """Stands at one part, `file`, whose number is `part`. `first`: path of the first one."""

    def __init__(self, first: Path, part: int) -> None:
        self.first = first
        self.part = part
        self.file = Stored(part_path(first, part))
        self._later: list[int] | None = None
        self._end: int | None = None
        """Size of the present part, where it was seen after another had begun."""
        self._told_damage = False

    @property
    def rotates(self) -> bool:
        """Whether it is known to have more than one part."""
        return self.part > 0 or bool(self._later)

    @property
    def is_one_file(self) -> bool:
        """Whether all of the log is in its first part, and that is not compressed."""
        name = PartName.of(self.first.name)
        return name is not None and parts(self.first.parent, name.rank) == (self.first,)

    @property
    def stored_size(self) -> int:
        """Bytes that all its parts take on the disk, packed or not. Raises UserError for a folder
        that cannot be read."""
        name, total = PartName.of(self.first.name), 0
        for path in parts(self.first.parent, name.rank) if name else ():
            with suppress(OSError):  # gone meanwhile
                total += path.stat().st_size
        return total

    def announce(self, part: int) -> None:
        """There is such a part."""
        if part > self.part and part not in (self._later or ()):
            self._later = sorted([*(self._later or ()), part])

    def look_for_next(self) -> bool:
        """At the end of a part: has the log gone on in the next one?"""
        if self.rotates and part_path(self.first, self.part + 1).exists():
            self.announce(self.part + 1)
        return bool(self._later)

    def pread(self, size: int, offset: int) -> bytes:
        """Of the present part; b"" at its end, and where it is gone. Raises UserError."""
        is_over = bool(self._later)  # asked first: one that another follows grows no more
        data = self.file.pread(size, offset)
        if is_over and data is not None and len(data) < size:
            self._end = offset + len(data)
        return data or b""

    def has_next(self) -> bool:
        # Where one is slow to read, the cap may have taken all that were known.
        outrun = self.part > 0 and not self._later and self.file.is_gone
        if self._later is None or outrun:
            self._later = _later_parts(self.first, self.part)
        return bool(self._later)

    def turn(self, offset: int) -> str | None:
        """To the next part that the cap has left there, or the newest, from `offset` of the present
        one; what is missing between."""
        before, later = self.part, self._later or []
        lost = self.file.is_gone and self._end != offset
        while True:
            self.part = later.pop(0)
            self.file = Stored(part_path(self.first, self.part))
            if not later or self.file.size() is not None:
                break
        self._told_damage, self._end = False, None
        first, last = before if lost else before + 1, self.part - 1
        if first > last:
            return None
        gap = f"{first} to {last}" if first < last else f"{first}"
        where = " from here on" if lost and offset else ""
        return f"part {gap} of this log was dropped{where} (logging.max)"

    def damage(self) -> str | None:
        """Of the present part, once it was met; told once."""
        if self.file.damaged is None or self._told_damage:
            return None
        self._told_damage = True
        return f"{self.file.plain.name}.gz is damaged from here on"


def part_path(first: Path, number: int) -> Path:
    """The plain file of a part, from the path of the first one."""
    name = PartName.of(first.name)
    return first.with_name(name._replace(number=number).text) if name and number else first


def _later_parts(first: Path, after: int) -> list[int]:
    name = PartName.of(first.name)
    there = parts(first.parent, name.rank) if name else ()
    return [number for path in there if (number := number_of(path)) > after]
