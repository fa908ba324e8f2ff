"""How this node's ranks ended, from the exit records that their shims leave."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.agent.exit_record import without_ignored

Record = Mapping[str, Any]
_SENTENCE = 500


def read_records(folder: Path) -> dict[int, Record]:
    """Rank to exit record, for those that are there and whole."""
    records: dict[int, Record] = {}
    for path in sorted(folder.glob("rank-*.exit.json")):
        record = read_record(path)
        if record is not None:
            records[int(record["rank"])] = record
    return records


def read_record(path: Path) -> Record | None:
    """None where it is gone again, or not a shim's."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("rank"), int)
    return record if whole and isinstance(record.get("ended"), (int, float)) else None


def code_of(record: Record) -> int:
    """The exit code, or minus the signal that ended the rank."""
    number, code = record.get("signal"), record.get("exit_code")
    if isinstance(number, int):
        return -number
    return code if isinstance(code, int) else 1


def first_failure(records: Mapping[int, Record], ended_at: float | None) -> dict[str, Any] | None:
    """The earliest failure that was not a consequence of another's or of ours.

    `ended_at` (epoch seconds) is when the agent itself began to end the ranks: later failures
    are its doing. A rank that SIGTERM ended was told to end by its launcher, so it is named only
    where no rank failed by itself.
    """
    failed = [
        record
        for record in records.values()
        if code_of(record) != 0 and (ended_at is None or record["ended"] <= ended_at)
    ]
    failed = [record for record in failed if not record.get("orphaned_by")]
    if not failed:
        return None
    record = min(failed, key=lambda one: (told_to_end(one), one["ended"]))
    return {
        "rank": record["rank"],
        "code": code_of(record),
        "signal": record.get("signal"),
        "t": record["ended"],
        "message": describe(record),
        "exception": (record.get("exception") or {}).get("type"),
    }


def told_to_end(record: Record) -> bool:
    """Whether this looks like the answer to a SIGTERM: its signal, or a shell's code for it."""
    return code_of(record) in (-signal.SIGTERM, 128 + signal.SIGTERM)


def describe(record: Record) -> str:
    """In one sentence why a rank ended. A line without an end is no sentence."""
    words = _last_words(record)
    return words if len(words) <= _SENTENCE else f"{words[: _SENTENCE - 1]}…"


def _last_words(record: Record) -> str:
    exception = record.get("exception")
    if exception:
        return f"{exception['type']}: {exception['message']}".removesuffix(": ")
    number = record.get("signal")
    if isinstance(number, int):
        return f"ended by {signal_name(number)}"
    lines = [line for line in without_ignored(record.get("last_lines", [])) if line.strip()]
    # A bar that was drawn over and over is one line; the last state of it is shown.
    return lines[-1].rstrip().rpartition("\r")[2] if lines else f"exit code {code_of(record)}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def outcome(
    records: Mapping[int, Record],
    expected: int,
    *,
    terminated: bool,
    launched: bool,
) -> str:
    """`reason` of node_ended; see docs/architecture.md."""
    failed = [record for record in records.values() if code_of(record)]
    missing = len(records) < expected
    if terminated:
        return "terminated"
    if not missing and not failed:
        return "completed"
    if not launched and not records:
        return "setup-failed"
    orphaned = [record for record in failed if record.get("orphaned_by")]
    if any(not told_to_end(record) for record in failed if record not in orphaned):
        return "rank-failed"
    return "launch-failed" if missing or len(orphaned) == len(failed) else "rank-failed"
