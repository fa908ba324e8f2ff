"""A file of lines that keeps the newest ones whole and of older ones ever fewer."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from orchestrator.agent.files import open_log

LARGEST = 24 << 20
"""Bytes. A node with 8 GPUs writes 2 KiB a sample: all of 16 hours, then half of what is older."""


class SampleFile:
    """Appended to; beyond `largest` every other line of its older half is taken out, by rename.

    So a week is there from its first hour on, and the last hours at their full rate. A full disk
    loses samples and nothing else.
    """

    def __init__(self, path: Path, mode: int, largest: int = LARGEST) -> None:
        self._path, self._mode, self._largest = path, mode, largest
        self._file: int | None = None
        self._size = 0

    def append(self, line: bytes) -> None:
        """Never raises: samples are worth less than what they are of."""
        try:
            if self._file is None:
                self._open()
            if self._size + len(line) > self._largest:
                self._thin()
            if self._file is not None and self._size + len(line) <= 2 * self._largest:
                self._size += os.write(self._file, line)
        except OSError:
            return

    def _open(self) -> None:
        self._file = open_log(self._path, self._mode)
        self._size = os.fstat(self._file).st_size

    def _thin(self) -> None:
        scratch = self._path.with_name("." + self._path.name)
        try:
            with self._path.open("rb") as old, scratch.open("wb") as new:
                os.fchmod(new.fileno(), self._mode)
                for number, line in enumerate(old):
                    if number % 2 == 0 or old.tell() > self._size // 2:
                        new.write(line)
            scratch.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                scratch.unlink()
            return
        if self._file is not None:
            descriptor, self._file = self._file, None  # its number may be another file's next
            os.close(descriptor)
        self._open()
