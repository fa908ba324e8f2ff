"""Who may use which GPU: one user's leases on one machine.

A lease is a lock (flock) on a file named after the device. Only the supervisor of a run holds
it, never a child of it, so that it ends with that process however that process ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError

_TICKET = "ticket-"
_DEVICE = "device-"


@dataclass(frozen=True)
class Holder:
    run_id: str
    pid: int


UNNAMED = Holder("?", 0)
"""Somebody who holds it, and found no room on the disk to say who."""


def lease_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """$PTX_LEASES, else /tmp/ptx-<uid>.

    Not $XDG_RUNTIME_DIR: cron jobs have none, and logind deletes it when the user's last
    session ends, while runs go on; the next login would lease their GPUs a second time.
    """
    chosen = environ.get("PTX_LEASES", "")
    return Path(chosen) if chosen.startswith("/") else Path(f"/tmp/ptx-{os.geteuid()}")  # noqa: S108


class Leases:
    """The lease folder, made where it is missing. Raises UserError where another user could
    read or change it: /tmp is everybody's."""

    def __init__(self, folder: Path) -> None:
        self._folder = _open_private(folder)

    def close(self) -> None:
        os.close(self._folder)

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def queue(self, candidates: Collection[str]) -> Iterator[Ticket]:
        """Stand in line for some of these devices until the block ends."""
        with self._alone():
            number = max((number for number, _ in self._tickets()), default=0) + 1
            name = f"{_TICKET}{number:012d}"
            descriptor = self._open(name)
            _try_lock(descriptor)
            _write(descriptor, {"candidates": sorted(candidates)})
        try:
            yield Ticket(number, frozenset(candidates))
        finally:
            with self._alone():
                os.unlink(name, dir_fd=self._folder)
                os.close(descriptor)

    def acquire(
        self, ticket: Ticket, free: Sequence[str], wanted: int, holder: Holder
    ) -> Lease | None:
        """`wanted` of the free devices, or None: all or nothing, and never before a run that
        waits longer for any of the same devices. Does not wait."""
        with self._alone():
            if self._is_behind(ticket):
                return None
            lease = Lease({})
            for uuid in free:
                if len(lease.locks) < wanted and uuid in ticket.candidates:
                    self._lock_device(uuid, lease.locks)
            if len(lease.locks) < wanted:
                lease.release()
                return None
            for uuid, descriptor in lease.locks.items():
                _write(descriptor, {"uuid": uuid, "run_id": holder.run_id, "pid": holder.pid})
            return lease

    def holders(self) -> dict[str, Holder]:
        """Every leased device with the run that holds it."""
        with self._alone():
            found = {}
            for name in self._names(_DEVICE):
                if (record := self._read_locked(name)) is not None:
                    found[_uuid(name)] = _holder(record)
            return found

    def _lock_device(self, uuid: str, locks: dict[str, int]) -> None:
        descriptor = self._open(_name(uuid))
        if _try_lock(descriptor):
            locks[uuid] = descriptor
        else:
            os.close(descriptor)

    def _is_behind(self, ticket: Ticket) -> bool:
        return any(
            number < ticket.number
            and (candidates is None or not ticket.candidates.isdisjoint(candidates))
            for number, candidates in self._tickets()
        )

    def _tickets(self) -> list[tuple[int, frozenset[str] | None]]:
        """Who waits, in no order, and for which devices: None for those that found no room to say
        so, who may want any. Tickets of the dead are thrown away."""
        waiting: list[tuple[int, frozenset[str] | None]] = []
        for name in self._names(_TICKET):
            record = self._read_locked(name)
            if record is None:
                os.unlink(name, dir_fd=self._folder)
            else:
                waiting.append((int(name.removeprefix(_TICKET)), _candidates(record)))
        return waiting

    def _read_locked(self, name: str) -> dict[str, Any] | None:
        """What the process that holds this file wrote, {} where it could not; None where no
        process holds it."""
        descriptor = self._open(name)
        try:
            if _try_lock(descriptor):
                return None
            record = json.loads(os.pread(descriptor, 1 << 20, 0))
            return record if isinstance(record, dict) else {}
        except ValueError:
            return {}
        finally:
            os.close(descriptor)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time looks or takes, so that two can neither both take half of what
        they want nor read what the other is writing. Held for microseconds."""
        descriptor = self._open("lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _names(self, prefix: str) -> list[str]:
        names = os.listdir(self._folder)  # noqa: PTH208 - a descriptor, which no Path can be
        return [name for name in names if name.startswith(prefix)]

    def _open(self, name: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, 0o600, dir_fd=self._folder)


@dataclass(frozen=True)
class Ticket:
    number: int
    candidates: frozenset[str]


@dataclass(frozen=True)
class Lease:
    locks: dict[str, int]
    """Device UUID -> the open descriptor that holds its lock."""

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self.locks)

    def refresh(self) -> None:
        """Look young: services that tidy /tmp delete files that nobody touched for days."""
        for descriptor in self.locks.values():
            os.utime(descriptor)

    def release(self) -> None:
        for descriptor in self.locks.values():
            os.close(descriptor)
        self.locks.clear()


def _open_private(path: Path) -> int:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            f"The folder for GPU leases, {path}, cannot be used: {error.strerror}.",
            hint="Set PTX_LEASES to a folder of yours on a disk of this machine.",
        ) from error
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(descriptor)
        raise UserError(
            f"The folder for GPU leases, {path}, is not yours alone.",
            hint=f"Type `chmod 700 {path}` if it is yours; else set PTX_LEASES to a folder of "
            "yours on a disk of this machine.",
        )
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(descriptor: int, record: dict[str, Any]) -> None:
    """For those who ask who holds the lock. On a full disk the lock counts without it."""
    data = json.dumps(record).encode()
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


def _name(uuid: str) -> str:
    return _DEVICE + uuid.replace("/", "_")


def _uuid(name: str) -> str:
    """No UUID has an underscore of its own."""
    return name.removeprefix(_DEVICE).replace("_", "/")


def _holder(record: Mapping[str, Any]) -> Holder:
    try:
        return Holder(str(record["run_id"]), int(record["pid"]))
    except (KeyError, TypeError, ValueError):
        return UNNAMED


def _candidates(record: Mapping[str, Any]) -> frozenset[str] | None:
    candidates = record.get("candidates")
    return frozenset(map(str, candidates)) if isinstance(candidates, list) else None
