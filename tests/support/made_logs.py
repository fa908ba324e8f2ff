"""Rank logs and exit records as the shim leaves them, written by hand into a made run."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from support.made_runs import MadeRun

from orchestrator.agent.exit_record import find_exception
from orchestrator.logs.line import stamp_of


def leave(
    run: MadeRun,
    rank: int,
    text: str = "",
    *,
    code: int = 0,
    node: int = 0,
    attempt: int = 0,
    t: float = 59,
    mark: str = "e",
    **more: Any,
) -> Path:
    """What rank printed, on stderr unless `mark` is o, and how it ended `t` seconds after the
    submission (by its node's clock): with a code, or minus the signal's number. Returns its log."""
    folder = run.layout.node(attempt, node)
    folder.mkdir(parents=True, exist_ok=True)
    lines = text.strip("\n").split("\n") if text.strip() else []
    log = run.layout.rank_log(attempt, node, rank)
    stamp = stamp_of(run.created + t)
    with log.open("a") as file:
        file.writelines(f"{stamp} {mark} {line}\n" for line in lines)
    record = {
        "v": 1,
        "run_id": run.layout.run_id,
        "attempt": attempt,
        "node": node,
        "host": f"n{node}",
        "rank": rank,
        "local_rank": rank % run.procs,
        "world_size": run.procs,
        "pid": 1,
        "started": run.created + 2,
        "ended": run.created + t,
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "exception": find_exception("\n".join(lines)) if code else None,
        "last_lines": lines[-20:],
        "device": None,
        "max_rss_bytes": 0,
        "log_bytes": log.stat().st_size,
        "lost_bytes": 0,
        "orphaned_by": None,
        **more,
    }
    run.layout.exit_record(attempt, node, rank).write_text(json.dumps(record))
    return log


def node_ended(
    run: MadeRun,
    codes: dict[int, int],
    *,
    node: int = 0,
    attempt: int = 0,
    reason: str = "rank-failed",
    first: int | None = None,
    t: float = 60,
    message: str | None = None,
) -> MadeRun:
    """As the agent of a node says it; `first` is the rank that it names."""
    failure = None
    if first is not None:
        number = -codes[first] if codes[first] < 0 else None
        failure = {"rank": first, "code": codes[first], "signal": number, "t": run.created + t - 1}
        failure["message"] = "" if number is None else f"ended by {signal.Signals(number).name}"
    return run.event(
        t,
        "node_ended",
        attempt=attempt,
        node=node,
        rc=int(any(codes.values())),
        reason=reason,
        ranks={str(rank): code for rank, code in codes.items()},
        first_failure=failure,
        message=message,
    )
