"""A compressed part read at any offset of what it held, without unpacking all of it.

The agent writes gzip members of a mebibyte each, whose headers say how long they are
(agent/compress.py), so a reader hops from one to the next. A file that somebody else packed is
unpacked from its start to where it is read.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from pathlib import Path

from orchestrator.logs.file import opened, read_at

_HEADER = struct.Struct("<2sBBIBBH2sHII")
"""gzip's fixed header, then one extra field `PT` with the sizes packed and unpacked."""
_MAGIC, _EXTRA, _FIELD = b"\x1f\x8b", 4, b"PT"
_LARGEST = 64 * 1024 * 1024
"""Of one member, unpacked: more is not ours and is read as a stream."""
_CHUNK = 256 * 1024


class Compressed:
    """One .gz file. `damaged` says from which unpacked byte on it cannot be read, once known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: int | None = None
        self._starts: list[int] | None = None
        self._members: list[tuple[int, int]] = []
        self._size = 0
        self._last = (-1, b"")
        self._stream: _Stream | None = None

    def size(self) -> int | None:
        """Unpacked; None where the file is gone. Raises UserError."""
        with opened(self.path) as descriptor:
            if descriptor is None:
                return None
            self._index(descriptor)
            if self._stream is not None:
                return self._stream.skip_to_end(descriptor)
            return self._size

    def pread(self, size: int, offset: int) -> bytes | None:
        """Up to `size` unpacked bytes, fewer only at the end; None where the file is gone."""
        with opened(self.path) as descriptor:
            if descriptor is None:
                return None
            self._index(descriptor)
            if self._stream is not None:
                data = self._stream.pread(descriptor, size, offset)
                self.damaged = self._stream.damaged
                return data
            pieces = []
            while size > 0 and offset < self._size:
                number = bisect_right(self._starts or [], offset) - 1
                data = self._member(descriptor, number)
                begin = offset - (self._starts or [])[number]
                piece = data[begin : begin + size]
                if not piece:
                    break  # damaged
                pieces.append(piece)
                size, offset = size - len(piece), offset + len(piece)
            return b"".join(pieces)

    def _index(self, descriptor: int) -> None:
        if self._starts is not None or self._stream is not None:
            return
        place, starts = 0, []
        while header := read_at(descriptor, _HEADER.size, place):
            found = _sizes(header)
            if found is None:
                if place == 0:
                    self._stream = _Stream()
                    return
                self.damaged = self._size
                break
            starts.append(self._size)
            self._members.append((place, found[0]))
            place, self._size = place + found[0], self._size + found[1]
        self._starts = starts

    def _member(self, descriptor: int, number: int) -> bytes:
        if self._last[0] != number:
            place, packed = self._members[number]
            try:
                data = zlib.decompress(read_at(descriptor, packed, place), 31)
            except zlib.error:
                data = b""
                self.damaged = (self._starts or [])[number]
            self._last = number, data
        return self._last[1]


class _Stream:
    """Somebody else's gzip file, read forward; going back begins anew."""

    def __init__(self) -> None:
        self.damaged: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._unpacker = zlib.decompressobj(31)
        self._place = 0
        self._offset = 0
        self._ready = b""
        self._ended = False

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        if offset < self._offset:
            self._begin()
        while not self._ended and self._offset + len(self._ready) < offset + size:
            more = self._more(descriptor)
            self._ready += more
            surplus = min(offset - self._offset, len(self._ready))
            if surplus > 0:
                self._ready, self._offset = self._ready[surplus:], self._offset + surplus
        begin = offset - self._offset
        return self._ready[begin : begin + size]

    def skip_to_end(self, descriptor: int) -> int:
        while not self._ended:
            more = self._more(descriptor)
            self._offset, self._ready = self._offset + len(self._ready), more
        return self._offset + len(self._ready)

    def _more(self, descriptor: int) -> bytes:
        """At most a chunk: a few bytes may unpack to gigabytes."""
        packed = self._unpacker.unconsumed_tail
        if self._unpacker.eof:
            packed = self._unpacker.unused_data
            self._unpacker = zlib.decompressobj(31)
        if not packed:
            packed = read_at(descriptor, _CHUNK, self._place)
            self._place += len(packed)
        if not packed:
            self._ended = True
            return b""
        try:
            return self._unpacker.decompress(packed, _CHUNK)
        except zlib.error:
            self._ended = True
            self.damaged = self._offset + len(self._ready)
            return b""


def _sizes(header: bytes) -> tuple[int, int] | None:
    """Packed and unpacked size of a member of ours."""
    if len(header) < _HEADER.size:
        return None
    magic, _, flags, _, _, _, _, field, length, packed, unpacked = _HEADER.unpack(header)
    if magic != _MAGIC or flags != _EXTRA or field != _FIELD or length != 8:
        return None
    return (packed, unpacked) if packed > _HEADER.size and 0 < unpacked <= _LARGEST else None
