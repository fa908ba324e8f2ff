"""One question to a scheduler about many jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.errors import SchedulerUnreachable, UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.schedulers.base import JobInfo

if TYPE_CHECKING:  # where no run was left by a dead client `ptx status` needs none of it
    from orchestrator.runs.events import Event


def ask_scheduler(
    name: str,
    jobs: Mapping[str, RunLayout],
    unsettled: Iterable[tuple[RunLayout, Sequence[Event]]],
    troubles: list[str],
) -> dict[str, JobInfo]:
    """Job id -> what the scheduler says of `jobs`, with one question for all. Runs that a dead
    client left, `unsettled`, are settled on the way."""
    from orchestrator.schedulers.registry import get

    try:
        scheduler = get(name)
        for layout, events in unsettled:
            from orchestrator.runs.reconcile import reconcile

            reconcile(layout, events, scheduler)
        return {info.job_id: info for info in scheduler.query(jobs)} if jobs else {}
    except SchedulerUnreachable as error:
        troubles.append(f"{error.message} {error.hint or ''}".strip())
    except UserError as error:  # a scheduler of a package that is no longer installed
        troubles.append(error.message)
    return {}
