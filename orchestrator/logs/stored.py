"""One part of a rank's log as bytes at offsets, plain or compressed, also while it becomes so."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.logs.compressed import Compressed
from orchestrator.logs.file import opened, read_at


class Stored:
    """Holds no descriptor between reads, so thousands of files cost none.

    A file is opened anew for every look: over NFS that alone shows what was written elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.plain = path.with_suffix("") if path.suffix == ".gz" else path
        self._compressed: Compressed | None = None
        self.is_gone = False
        """Whether it was not there at the last read."""

    @property
    def damaged(self) -> int | None:
        """Byte from which on a compressed file cannot be unpacked, once a read met it."""
        return self._compressed.damaged if self._compressed else None

    def size(self) -> int | None:
        """None where it is gone. Raises UserError."""
        if self._compressed is None:
            with opened(self.plain) as descriptor:
                if descriptor is not None:
                    return os.fstat(descriptor).st_size
        return self._packed().size()

    def pread(self, size: int, offset: int) -> bytes | None:
        """None where it is gone, b"" at its (present) end. Raises UserError."""
        data = self._pread(size, offset)
        self.is_gone = data is None
        return data

    def _pread(self, size: int, offset: int) -> bytes | None:
        if self._compressed is None:
            with opened(self.plain) as descriptor:
                if descriptor is not None:
                    return read_at(descriptor, size, offset)
        return self._packed().pread(size, offset)

    def _packed(self) -> Compressed:
        path = self.plain.with_name(f"{self.plain.name}.gz")
        packed = self._compressed or Compressed(path)
        if path.exists():
            self._compressed = packed
        return packed
