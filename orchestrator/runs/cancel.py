"""Ending a run."""

from __future__ import annotations

import contextlib

from orchestrator.errors import Conflict, UserError
from orchestrator.runs.events import ClientEvents
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed, observe_one
from orchestrator.runs.process import user_name
from orchestrator.runs.state import State
from orchestrator.runs.submissions import standing


class Ended(Conflict):
    """There is nothing left to cancel."""


def cancel_run(layout: RunLayout) -> bool:
    """Ask for the end of a run; False where it was cancelled before.

    The event comes before the scheduler is asked: whoever sees the job end then knows why.
    Raises Conflict for a run that ended otherwise, SchedulerUnreachable, and UserError.
    """
    run, _ = observe_one(layout)
    state = run.state
    if state.state is State.CANCELLED and state.final:
        return False
    if state.final:
        raise Ended(
            f"{layout.run_id} has ended already, {state.words}",
            hint=f"`ptx status {layout.run_id}` shows how.",
        )
    if state.job_id is None:
        raise Conflict(
            f"{layout.run_id} is being submitted at this moment and has no job yet.",
            hint=f"Type `ptx cancel {layout.run_id}` again in a few seconds.",
        )
    events, number = ClientEvents(layout), _number(run)
    try:
        events.append("cancel", user=user_name(), submission=number)
    except OSError as error:
        raise UserError(
            f"{layout.events} cannot be written: {error.strerror}.",
            hint="Only the run's owner, or its group where the spec shares it, can cancel it.",
        ) from error
    _end_jobs(run, events, number)
    if not state.attempts or state.state is State.PENDING:
        with contextlib.suppress(UserError):  # what SLURM says of it now, it soon forgets
            observe_one(layout)
    with contextlib.suppress(OSError):  # somebody of the run's group may cancel, not delete
        layout.secrets.unlink(missing_ok=True)
    return True


def _number(run: Observed) -> int:
    """Of the submission that is cancelled, so that the next one is not, whatever clocks say."""
    one = standing(run.events)
    return one.number if one is not None else 0


def _end_jobs(run: Observed, events: ClientEvents, number: int) -> None:
    """The run's job, and what has taken its place meanwhile: a supervisor that submits a job does
    so before it looks for a cancel, and this looks for jobs after the cancel is written."""
    from orchestrator.schedulers.registry import get

    scheduler, ended = get(run.record.scheduler), ""
    try:
        while run.state.job_id not in (None, ended) and not run.state.final:
            ended = str(run.state.job_id)
            scheduler.cancel(run.layout, ended)
            run, _ = observe_one(run.layout, ask=False)
    except (UserError, KeyboardInterrupt) as error:
        # The run goes on: whatever ends it later was not this cancel.
        why = getattr(error, "message", "") or "interrupted"
        events.append("cancel_failed", message=why, submission=number)
        raise
