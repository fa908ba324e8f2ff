"""Rank logs packed once their ranks have ended (`logging.compress`).

Plain gzip, for any tool; in members of a mebibyte whose headers tell their sizes, so that
`ptx logs` finds the end of a long log without unpacking what lies before.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from threading import Event

_LOG = re.compile(r"rank-\d{5,9}(?:\.\d{4,9})?\.log")
_MEMBER = 1 << 20
_HEADER = struct.Struct("<2sBBIBBH2sHII")
"""gzip's fixed header (RFC 1952), then one extra field `PT` with the sizes packed and unpacked."""
_TRAILER = struct.Struct("<II")
_AT_ONCE = 8
_LEVEL = 4
"""Logs shrink about as much as at 6, in half the time."""


def compress_logs(folder: Path, mode: int, go_on: Callable[[], bool]) -> str | None:
    """Pack every rank's log in `folder`, several at once; what went wrong, else None.

    `go_on` waits a moment and says whether to. A log is removed only once its packed copy is
    whole and on disk.
    """
    try:
        import zlib  # noqa: F401 - a Python built without it cannot pack
    except ImportError:
        return "this node's python3 has no zlib; the logs stay as they are"
    from concurrent.futures import ThreadPoolExecutor, wait

    stop = Event()
    try:
        logs = sorted(path for path in folder.iterdir() if _LOG.fullmatch(path.name))
    except OSError as error:  # somebody removed the run folder
        return f"the logs in {folder} cannot be compressed: {error.strerror}"
    with ThreadPoolExecutor(min(_AT_ONCE, len(os.sched_getaffinity(0)))) as pool:
        packing = [pool.submit(_replace, path, mode, stop) for path in logs]
        while wait(packing, timeout=0).not_done:
            if not go_on():
                stop.set()
    return next((said for each in packing if (said := each.result()) is not None), None)


def _replace(path: Path, mode: int, stop: Event) -> str | None:
    """What went wrong."""
    half = path.with_name(f"{path.name}.gz.half")
    try:
        if _pack(path, half, mode, stop):
            half.replace(path.with_name(f"{path.name}.gz"))
            path.unlink()
        else:
            half.unlink(missing_ok=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        return f"{path.name} cannot be compressed: {error.strerror}; it stays as it is"
    return None


def _pack(path: Path, half: Path, mode: int, stop: Event) -> bool:
    """False where it was told to stop. Raises OSError."""
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as out, path.open("rb") as file:
        os.fchmod(descriptor, mode)
        while data := file.read(_MEMBER):
            if stop.is_set():
                return False
            out.write(_member(data + file.readline(_MEMBER)))
        out.flush()
        os.fsync(descriptor)
    return True


def _member(data: bytes) -> bytes:
    import zlib

    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(data) + packer.flush()
    size = _HEADER.size + len(body) + _TRAILER.size
    header = _HEADER.pack(b"\x1f\x8b", 8, 4, 0, 0, 255, 12, b"PT", 8, size, len(data))
    return header + body + _TRAILER.pack(zlib.crc32(data), len(data))
