"""Reading what others wrote into a run folder. Nothing here fails on a torn or foreign file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.runs.layout import RunLayout
from orchestrator.runs.reading import (
    END_OF_TIME,
    LARGEST,
    NUMBER,
    parse_json,
    read_bytes,
    read_regular,
    read_tail,
)
from orchestrator.runs.words import printable

VERSION = 1
_TAIL_BYTES = 64 * 1024
_MAX_RECORD = 16 << 20
"""Bytes; a plan of a thousand nodes with a large script's settings has less than one."""
_MAX_METRICS = 512 << 20
_LARGEST_MEMORY = 1 << 60


class RunRecord(NamedTuple):
    """run.json: what submit intended, written before the scheduler was called."""

    run_id: str
    name: str
    created: float
    """Epoch seconds."""
    scheduler: str
    launcher: str
    nodes: int
    procs_per_node: int
    world_size: int
    user: str = ""
    host: str = ""
    spec_path: str = ""
    ptx_version: str = ""
    argv: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps({"v": VERSION, **self._asdict()}, ensure_ascii=False, indent=2) + "\n"


class ExitRecord(NamedTuple):
    """How one rank ended, as its shim wrote it."""

    rank: int
    node: int
    host: str
    started: float
    ended: float
    exit_code: int | None
    signal: int | None
    exception_type: str
    exception_message: str
    last_lines: tuple[str, ...]
    device: str
    max_rss_bytes: int

    @property
    def code(self) -> int:
        """The exit code, or minus the signal that ended the rank."""
        if self.exit_code is not None:
            return self.exit_code
        return -(self.signal or 0) or 1


class Beat(NamedTuple):
    """The newest sign of life of a node, in epoch seconds."""

    t: float
    """By the node's clock."""
    written: float
    """By the file server's, which stamped the same moment."""


def read_record(layout: RunLayout) -> RunRecord | None:
    """run.json, or None where there is none that this version understands."""
    data = _read_object(f"{layout.path}/run.json")
    if data is None or data.get("v") != VERSION:
        return None
    run_id, scheduler, argv = _word(data, "run_id"), _word(data, "scheduler"), data.get("argv")
    if not run_id or not scheduler:
        return None
    return RunRecord(
        run_id=run_id,
        name=_word(data, "name"),
        created=_time(data, "created"),
        scheduler=scheduler,
        launcher=_word(data, "launcher"),
        nodes=_integer(data, "nodes", least=1),
        procs_per_node=_integer(data, "procs_per_node", least=1),
        world_size=_integer(data, "world_size", least=1),
        user=_word(data, "user"),
        host=_word(data, "host"),
        spec_path=_word(data, "spec_path"),
        ptx_version=_word(data, "ptx_version"),
        argv=tuple(map(str, argv)) if isinstance(argv, list) else (),
    )


def is_unreadable(layout: RunLayout) -> bool:
    """Whether there is a run.json that this user may read and this version cannot. Read anew, since
    a run may have been put there after somebody found none."""
    return os.access(layout.record, os.R_OK) and read_record(layout) is None


def read_plan(layout: RunLayout) -> dict[str, Any]:
    """plan.json of the newest submission; {} where there is none that can be read."""
    from orchestrator.runs.bundles import current_bundle

    try:
        plan = _read_object(current_bundle(layout) / layout.plan.name) or {}
    except OSError:
        return {}
    return plan if isinstance(plan.get("workdir", ""), str) and _is_place(plan) else {}


def _is_place(plan: dict[str, Any]) -> bool:
    """Whether it says from where to go on as a plan does, or does not say it."""
    place = plan.get("resume_from")
    return place is None or (
        isinstance(place, dict)
        and all(_optional_integer(place, key) is not None for key in ("step", "attempt"))
    )


def read_exit(layout: RunLayout, attempt: int, node: int, rank: int) -> ExitRecord | None:
    data = _read_object(layout.exit_record(attempt, node, rank))
    if data is None:
        return None
    exception = data.get("exception")
    exception = exception if isinstance(exception, dict) else {}
    lines = data.get("last_lines")
    return ExitRecord(
        rank=rank,
        node=node,
        host=_text(data, "host"),
        started=_time(data, "started"),
        ended=_time(data, "ended"),
        exit_code=_optional_integer(data, "exit_code"),
        signal=_optional_integer(data, "signal"),
        exception_type=_text(exception, "type"),
        exception_message=_text(exception, "message"),
        last_lines=tuple(str(line) for line in lines) if isinstance(lines, list) else (),
        device=_text(data, "device"),
        max_rss_bytes=_optional_integer(data, "max_rss_bytes", _LARGEST_MEMORY) or 0,
    )


def read_heartbeat(layout: RunLayout, attempt: int, node: int) -> Beat | None:
    """When this node's agent was last heard of. The file is opened: an NFS client may remember for
    a minute when it was written before."""
    try:
        found, text = read_regular(layout.node(attempt, node) / "heartbeat", _MAX_RECORD)
    except OSError:
        return None
    t = _time(_parse_object(text) or {}, "t")
    return Beat(t, found.st_mtime) if t else None


def read_last_metrics(layout: RunLayout, attempt: int) -> dict[str, Any] | None:
    """The newest whole line of an attempt's metrics, without reading the file from its start."""
    try:
        lines = read_tail(layout.metrics(attempt), _TAIL_BYTES).split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        metrics = _parse_object(line)
        if metrics is not None and metrics.get("v") == VERSION:
            return _bounded(metrics)
    return None


def read_metrics(layout: RunLayout, attempt: int) -> list[dict[str, Any]]:
    """All whole lines of an attempt's metrics."""
    try:
        lines = read_bytes(layout.metrics(attempt), _MAX_METRICS).split(b"\n")[:-1]
    except OSError:
        return []
    found = [_parse_object(line) for line in lines]
    return [_bounded(one) for one in found if one is not None and one.get("v") == VERSION]


def _bounded(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what no report says: whole numbers that are no machine's, and deep structures."""
    return {key: _sane(value, 3) for key, value in fields.items()}


def _sane(value: Any, depth: int) -> Any:
    if isinstance(value, list):
        return [_sane(one, depth - 1) for one in value] if depth else None
    if isinstance(value, dict):
        return {key: _sane(one, depth - 1) for key, one in value.items()} if depth else None
    return None if isinstance(value, int) and abs(value) > _LARGEST_MEMORY else value


def _read_object(path: Path | str) -> dict[str, Any] | None:
    try:
        return _parse_object(read_bytes(path, _MAX_RECORD))
    except OSError:
        return None


def _parse_object(data: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _word(data: dict[str, Any], key: str) -> str:
    """A text that is shown on one line."""
    value = data.get(key)
    if not isinstance(value, str):
        return ""
    return value if value.isprintable() else printable(value)


def _time(data: dict[str, Any], key: str) -> float:
    """In epoch seconds; 0 where there is none that a calendar knows."""
    value = data.get(key)
    return float(value) if isinstance(value, NUMBER) and 0 <= value < END_OF_TIME else 0.0


def _optional_integer(data: dict[str, Any], key: str, most: int = LARGEST) -> int | None:
    value = data.get(key)
    return value if type(value) is int and -most <= value <= most else None  # a bool is no number


def _integer(data: dict[str, Any], key: str, *, least: int = 0) -> int:
    value = data.get(key)
    # A bool is no number, though an int.
    return value if type(value) is int and least <= value <= LARGEST else least
