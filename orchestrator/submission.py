"""From a prepared run to a job that a scheduler has."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.errors import SchedulerUnreachable, UserError
from orchestrator.preparation import Prepared
from orchestrator.runs.create import create_run
from orchestrator.runs.events import ClientEvents
from orchestrator.runs.process import host_name, this_process, user_name
from orchestrator.runs.records import RunRecord
from orchestrator.runs.registry import register
from orchestrator.schedulers.environment import withheld

if TYPE_CHECKING:
    from orchestrator.runs.layout import RunLayout


def submit(prepared: Prepared, environ: Mapping[str, str] = os.environ) -> str:
    """Make the run folder and hand the bundle over; return the job id.

    The intent stands in the folder before the scheduler is called: whatever happens to this
    process after that, the next command finds out what became of the job.
    """
    secrets = secret_values(prepared.loaded.spec.secrets, environ)
    prepared.scheduler.check()
    layout, events = make_run(prepared, secrets)
    return hand_over(prepared, layout, secrets, events)


def make_run(
    prepared: Prepared, secrets: Mapping[str, str], **which: str
) -> tuple[RunLayout, ClientEvents]:
    """The run's folder, with the intent to submit it, and its client's events; `which` goes into
    the intent. Raises Conflict and UserError; then nothing of it is left."""
    events = ClientEvents(prepared.layout)
    layout = create_run(
        _record(prepared),
        prepared.bundle,
        prepared.loaded.text,
        secrets=secrets,
        group_shared=prepared.plan.group_shared,
        intend=lambda: events.append(
            "intent", scheduler=prepared.plan.scheduler, **vars(this_process()), **which
        ),
    )
    register_run(layout)
    return layout, events


def hand_over(
    prepared: Prepared,
    layout: RunLayout,
    secrets: Mapping[str, str],
    events: ClientEvents,
    **which: int,
) -> str:
    """Give the bundle, which is written, to the scheduler, and record what became of it; `which`
    goes into the events. Returns the job id."""
    try:
        with withheld(secrets):  # SLURM keeps a job's environment in its spool and its database
            job_id = prepared.scheduler.submit(prepared.bundle, layout)
    except SchedulerUnreachable:
        raise  # it may have the job all the same: the next command looks for it
    except UserError as error:
        events.append("submit_failed", message=error.message, **which)
        raise
    events.append("submitted", job_id=job_id, **which)
    return job_id


def secret_values(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    missing = [name for name in names if name not in environ]
    if missing:
        raise UserError(
            f"The spec names the secret {missing[0]}, which is not set here."
            if len(missing) == 1
            else f"The spec names secrets that are not set here: {', '.join(missing)}.",
            hint=f"export {missing[0]}=... and submit again.",
        )
    return {name: environ[name] for name in names}


def _record(prepared: Prepared) -> RunRecord:
    plan = prepared.plan
    return RunRecord(
        run_id=plan.run_id,
        name=plan.name,
        created=round(time(), 3),
        scheduler=plan.scheduler,
        launcher=plan.launcher,
        nodes=plan.nodes,
        procs_per_node=plan.procs_per_node,
        world_size=plan.world_size,
        user=user_name(),
        host=host_name(),
        spec_path=os.path.abspath(prepared.loaded.path),  # noqa: PTH100 - links stay
        ptx_version=__version__,
        argv=tuple(sys.argv),
    )


def register_run(layout: RunLayout) -> None:
    """Without its row a run is still found by its path and in its root."""
    with contextlib.suppress(OSError):
        register(layout)
