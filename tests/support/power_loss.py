"""What would be left of a folder if the power went, by what the process has synced.

POSIX promises no more than this: the bytes of a file are those of its last fsync, and a name is in
a folder for certain once the folder was synced. All else may be there, and may not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

_CHANGES = ("rename", "replace", "link", "unlink", "rmdir", "mkdir")


class Disk:
    """All that is below `root` when it is made is durable; what comes later, as it is synced.

    After each change of a name `look` is called, which may ask. The sync number `without`, counted
    from 0, does not happen.
    """

    def __init__(
        self,
        root: Path,
        monkeypatch: pytest.MonkeyPatch,
        look: Callable[[Disk], None] = lambda _: None,
        *,
        without: int | None = None,
    ) -> None:
        self.root, self.synced = root, list[str]()
        self._look, self._without = look, without
        self._names: dict[int, dict[str, int]] = {}
        self._bytes: dict[int, bytes] = {}
        for path in (root, *root.rglob("*")):
            self._take(path)
        monkeypatch.setattr(os, "fsync", self._fsync)
        for name in _CHANGES:
            monkeypatch.setattr(os, name, self._changing(getattr(os, name)))

    def may_show(self, path: Path) -> bool:
        """Whether `path` could be there after a loss of power now."""
        return path.exists() or path.name in self._names.get(_inode(path.parent), {})

    def keeps(self, path: Path, below: Path | None = None) -> bool:
        """Whether `path` would be there for certain, with the bytes that it has now; if `below` is
        there, where that is given."""
        if path in (self.root, below):
            return True
        named = self._names.get(_inode(path.parent), {}).get(path.name)
        return named == _inode(path) and self.keeps_bytes(path) and self.keeps(path.parent, below)

    def keeps_bytes(self, path: Path) -> bool:
        """Whether `path`, if it is there, has the bytes that it has now."""
        return path.is_dir() or (
            path.is_file() and self._bytes.get(_inode(path)) == path.read_bytes()
        )

    def _take(self, path: Path) -> None:
        if path.is_dir():
            self._names[_inode(path)] = {one.name: _inode(one) for one in path.iterdir()}
        else:
            self._bytes[_inode(path)] = path.read_bytes()

    def _fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self.synced.append(str(path.relative_to(self.root)))
        if len(self.synced) - 1 != self._without:
            self._take(path)

    def _changing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            done = real(*args, **kwargs)
            self._look(self)
            return done

        return change


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else -1


def losses(
    root: Path,
    act: Callable[[], object],
    mark: Path,
    files: Sequence[Path],
    *,
    stays: bool = True,
    without: int | None = None,
) -> tuple[list[str], list[str]]:
    """Do `act` below `root`. What a loss of power could take of `files` at a moment at which `mark`
    may be left and says that all are there, or at the end where they are to stay; and what was
    synced, in order."""
    found: list[str] = []

    def look(disk: Disk) -> None:
        if disk.may_show(mark):
            where = mark if mark.is_dir() else mark.parent
            found.extend(str(path) for path in files if not disk.keeps(path, where))
            if mark.exists() and not disk.keeps_bytes(mark):
                found.append(str(mark))

    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(root, patch, look, without=without)
        act()
    if stays:
        found += [str(path) for path in (mark, *files) if not disk.keeps(path)]
    elif disk.may_show(mark):
        found.append(str(mark))
    return found, disk.synced
