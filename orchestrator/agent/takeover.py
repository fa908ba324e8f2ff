"""What a supervisor that was killed has left to the one that takes its place in the same job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.judgement import Judge
from orchestrator.agent.lifeline import PORT
from orchestrator.agent.processes import Process, environment_value, process_table

_BETWEEN = 2.0
"""Seconds between two questions to SLURM."""
_KILL_AGAIN = 10.0


class Inheritance(NamedTuple):
    attempt: int
    """The newest that the other began."""
    nodes: list[str]
    begun: float
    """When, in seconds since the epoch."""
    retries: int
    """How many it had begun in this allocation before."""
    port: int
    """Where the agents look for their supervisor."""
    end: Mapping[str, Any] | None
    """attempt_ended, where it had come so far."""


def inheritance(
    events: Iterable[Mapping[str, Any]], job_id: str, restarts: int, since: int = 0
) -> Inheritance | None:
    """From the supervisors' events; None where this start of the job had no other supervisor.
    Attempts before `since` are of an earlier submission: another cluster, or one that was set up
    anew, may have given its job the same number."""
    found: Inheritance | None = None
    for event in events:
        if event.get("type") == "job_started":
            other = (event.get("job_id"), event.get("restarts")) != (job_id, restarts)
            if other or int(event["attempt"]) < since:
                found = None
                continue
            found = Inheritance(
                int(event["attempt"]),
                [str(name) for name in event.get("nodes") or ()],
                float(event["t"]),
                0 if found is None else found.retries + 1,
                int(event.get("port") or 0),
                None,
            )
        elif event.get("type") == "attempt_ended" and found is not None:
            found = found._replace(end=event)
    return found


def living_sruns(job_id: str, attempt: int) -> list[Process]:
    """The processes of the srun that a supervisor on this machine had started."""
    wanted = {"SLURM_JOB_ID": job_id, "PTX_ATTEMPT": str(attempt)}
    return [
        process
        for process in process_table().values()
        if process.name == "srun"
        and environment_value(process.pid, PORT) is not None
        and all(environment_value(process.pid, name) == value for name, value in wanted.items())
    ]


def end_steps(
    left: Inheritance,
    judge: Judge,
    allocation: Allocation,
    grace: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Of an attempt whose srun has died with the supervisor: its ranks save, if any is left.

    Waits for as long as SLURM does not answer: the next attempt would start beside them.
    """
    due: float | None = None
    while not judge.all_ended(left.attempt, left.nodes):
        steps = allocation.steps()
        if steps == []:
            return
        now = time.monotonic()
        if steps and due is None:
            allocation.signal_steps(steps, "TERM")
            due = now + grace()
        elif steps and due is not None and now > due:
            allocation.signal_steps(steps, "KILL")
            due = now + _KILL_AGAIN
        sleep(_BETWEEN)
