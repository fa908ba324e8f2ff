"""What became of one node's part, from its ranks' exit records and what the agent saw."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.agent.files import last_line
from orchestrator.agent.ranks import (
    Record,
    code_of,
    first_failure,
    outcome,
    read_records,
    signal_name,
    told_to_end,
)
from orchestrator.agent.stderr import SAID


class Seen(NamedTuple):
    """What the agent knows besides the records."""

    launched: bool
    launcher_status: int | None
    """waitpid's; None where the launcher did not end by itself."""
    ended_at: float | None
    """When (epoch seconds) the agent itself began to end the ranks."""
    stop_signal: str | None
    asked: str | None
    """Why the ranks were asked to stop."""
    hung: bool


class Conclusion(NamedTuple):
    reason: str
    records: Mapping[int, Record]
    first: Mapping[str, Any] | None
    said: str | None
    """How the launcher ended, for the logs; None where the ranks tell enough."""
    message: str | None
    """For node_ended; None leaves what the agent has said before."""
    complete: bool
    """Every rank is there and left with 0."""


def conclude(node_dir: Path, expected: int, seen: Seen) -> Conclusion:
    records = read_records(node_dir)
    first = first_failure(records, seen.ended_at)
    ended = seen.stop_signal is not None and seen.ended_at is not None
    if (ended or seen.asked) and first is not None and told_to_end(records[first["rank"]]):
        first = None  # it did what it was told, by the file or by SLURM's own SIGTERM
    complete = len(records) >= expected and not any(map(code_of, records.values()))
    # Its time was up before it was through, with its launch perhaps.
    cut_off = seen.asked is not None and seen.ended_at is not None and not complete
    terminated = (ended or cut_off) and first is None
    reason = outcome(records, expected, terminated=terminated, launched=seen.launched)
    if seen.hung and not complete:
        return Conclusion("hang", records, None, None, None, complete=False)
    obeyed = seen.asked is not None and len(records) >= expected and _obeyed(records)
    if obeyed and (ended or not complete):  # all with 0 before any signal: the work is done
        reason = "stopped"
    said, message = None, None
    if reason in ("setup-failed", "launch-failed"):
        said, message = _launch_failure(node_dir, reason, seen)
    elif reason == "terminated" and seen.stop_signal is not None:
        message = f"ended by {seen.stop_signal}"
    return Conclusion(reason, records, first, said, message, complete)


def _obeyed(records: Mapping[int, Record]) -> bool:
    return all(code_of(record) == 0 or told_to_end(record) for record in records.values())


def _launch_failure(node_dir: Path, reason: str, seen: Seen) -> tuple[str, str | None]:
    """How it ended for the log; why, as the log's last line has it, for node_ended too."""
    why = last_line(node_dir / "launcher.log")
    how, failed = _launcher_end(reason, seen)
    if not failed or not why:
        return how, None
    if not why.startswith(SAID):
        return how, f"{how}: {why}"
    # Once it is the launcher, launch.sh's last word was that all is well.
    return how, why.removeprefix(SAID) if reason == "setup-failed" else None


def _launcher_end(reason: str, seen: Seen) -> tuple[str, bool]:
    """In one sentence how it ended, and whether that was by itself with a code of failure."""
    what = "launch.sh" if reason == "setup-failed" else "the launcher"
    if seen.launcher_status is None or seen.ended_at is not None:
        return f"{what} was ended because a rank's shim vanished", False
    code = os.waitstatus_to_exitcode(seen.launcher_status)
    how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
    when = " before it came to the launcher" if reason == "setup-failed" else ""
    return f"{what} {how}{when}", code > 0
