"""Run folders as ptx leaves them, written by hand: for looking at, not for running."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import this_process
from orchestrator.runs.records import RunRecord

CREATED = 1_700_000_000.0


class MadeRun:
    """One run folder; its events file grows with `event`."""

    def __init__(
        self,
        root: Path,
        run_id: str,
        *,
        nodes: int = 1,
        procs: int = 2,
        scheduler: str = "local",
        created: float = CREATED,
    ) -> None:
        self.layout = RunLayout(root / run_id)
        self.layout.events.mkdir(parents=True)
        self.procs = procs
        self.created = created
        record = RunRecord(
            run_id, run_id[:-7], created, scheduler, "torchrun", nodes, procs, nodes * procs, "ann"
        )
        self.layout.record.write_text(record.to_json())

    def event(self, t: float, kind: str, **fields: Any) -> MadeRun:
        """`t` in seconds after the submission."""
        line = json.dumps({"v": 1, "t": self.created + t, "type": kind, **fields})
        with (self.layout.events / "made.jsonl").open("a") as file:
            file.write(line + "\n")
        return self

    def submitted(self, job_id: str = "12") -> MadeRun:
        return self.event(0, "intent", scheduler="local").event(1, "submitted", job_id=job_id)

    def supervised(self) -> MadeRun:
        """By a process that lives as long as the test: this one."""
        return self.submitted().event(1, "supervisor_started", **vars(this_process()))

    def started(self, node: int = 0, attempt: int = 0, t: float = 2) -> MadeRun:
        self.layout.node(attempt, node).mkdir(parents=True)
        return self.event(t, "node_started", attempt=attempt, node=node, host=f"n{node}", pid=1)

    def ended(
        self, codes: list[int], node: int = 0, attempt: int = 0, t: float = 60, message: str = ""
    ) -> MadeRun:
        """`codes` of this node's ranks; the first that is not 0 failed first."""
        first = node * self.procs
        ranks = {str(first + local): code for local, code in enumerate(codes)}
        bad = [rank for rank, code in ranks.items() if code]
        failure = None
        if bad:
            failure = {
                "rank": int(bad[0]),
                "code": ranks[bad[0]],
                "signal": None,
                "t": self.created + t - 1,
                "message": message,
            }
        return self.event(
            t,
            "node_ended",
            attempt=attempt,
            node=node,
            rc=int(bool(bad)),
            reason="rank-failed" if bad else "completed",
            ranks=ranks,
            first_failure=failure,
        )

    def over(
        self,
        end_class: str = "failed",
        *,
        attempt: int = 0,
        t: float = 61,
        where: str | None = None,
        message: str = "",
    ) -> MadeRun:
        """What the supervisor says of an attempt; `where` says that another is to follow."""
        said: dict[str, Any] = {"attempt": attempt, "class": end_class, "message": message}
        said |= {"retry": where is not None, "counted": True, "where": where, "nodes_failed": []}
        return self.event(t, "attempt_ended", **said)

    def completed(self) -> MadeRun:
        return self.submitted().started().ended([0] * self.procs)

    def failed(self, message: str = "ValueError: bad batch") -> MadeRun:
        codes = [0] * (self.procs - 1) + [1]
        return self.submitted().started().ended(codes, message=message).over()

    def metrics(self, attempt: int = 0, t: float = 30, **fields: Any) -> MadeRun:
        self.layout.attempt(attempt).mkdir(parents=True, exist_ok=True)
        with self.layout.metrics(attempt).open("a") as file:
            file.write(json.dumps({"v": 1, "t": self.created + t, **fields}) + "\n")
        return self
