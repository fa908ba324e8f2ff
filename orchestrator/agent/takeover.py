"""What a supervisor that was killed has left to the one that takes its place in the same job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from orchestrator.agent.lifeline import PORT
from orchestrator.agent.processes import Process, environment_value, process_table


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
