"""A run that has ended, started again in its own folder: the next submission of the same run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.checkpoints.choose import choose
from orchestrator.checkpoints.commit import attempt_numbers
from orchestrator.checkpoints.listing import Listed, newest_first
from orchestrator.checkpoints.manifest import DamagedCheckpoint
from orchestrator.errors import Conflict, UserError
from orchestrator.preparation import Choices, Prepared, assemble
from orchestrator.runs.bundles import current_bundle, put_bundle
from orchestrator.runs.create import secrets_file
from orchestrator.runs.events import ClientEvents
from orchestrator.runs.files import replace as replace_file
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed, observe_one
from orchestrator.runs.process import this_process
from orchestrator.runs.reading import open_file
from orchestrator.runs.records import read_plan
from orchestrator.runs.reduce import MAY_COME_BACK
from orchestrator.runs.registry import name_of
from orchestrator.runs.state import State
from orchestrator.runs.submissions import submissions
from orchestrator.runs.wait import seems_over
from orchestrator.submission import hand_over, register_run, secret_values

if TYPE_CHECKING:
    from orchestrator.schedulers.base import Scheduler
    from orchestrator.spec.job import JobSpec

Change = tuple[str, Any, Any]
"""Dotted path of a key of the spec, what it was, what it is."""


@dataclass(frozen=True)
class Resumption:
    """A run that could be started again as it stands."""

    prepared: Prepared
    number: int
    """Of the submission: 1 for the first `ptx resume`."""
    attempt: int
    """The attempt that begins."""
    checkpoint: Listed | None
    """What it continues from, if its files are whole; None begins at step 0."""
    damaged: tuple[Listed, ...]
    """Newer ones that are not whole, and are passed over; one that is `away` ends the start."""
    changes: tuple[Change, ...]
    scheduler: str
    """Which has had the run so far."""
    job_id: str | None
    """Its job, which has ended."""


def prepare_resumption(
    layout: RunLayout, choices: Choices, from_step: int | None = None
) -> Resumption:
    """Plan and render the run anew from its resolved spec. Nothing is written.

    Raises Conflict while the run goes on, NotFound where there is no whole checkpoint of
    `from_step`, UntrustedCheckpoint where others could have written the one to continue from, and
    what preparing a spec raises.
    """
    observed, troubles = observe_one(layout)
    _refuse_unless_ended(observed, troubles)
    attempt = 1 + max((*attempt_numbers(layout.root / "attempts"), *observed.state.attempts, -1))
    plan = read_plan(layout)
    resume_from = plan.get("resume_from")
    if from_step is not None:
        if from_step:
            choose(newest_first(layout.checkpoints, None), from_step, layout.checkpoints)
        resume_from = {"step": from_step, "attempt": attempt}
    before, loaded = _specs(layout, choices)
    prepared = assemble(
        replace(loaded, path=Path(observed.record.spec_path or loaded.path)),
        layout.run_id,
        layout.root,
        workdir=Path(plan["workdir"]) if "workdir" in plan else None,
        resume_from=resume_from,
    )
    _refuse_other_sharing(before, prepared.loaded.spec)
    checkpoint: Listed | None = None
    damaged: tuple[Listed, ...] = ()
    if prepared.loaded.spec.checkpoint.resume == "auto":
        checkpoint, damaged = _continued(layout.checkpoints, resume_from)
        if checkpoint is None and damaged:
            raise _none_whole(layout, damaged)
        if checkpoint is not None:  # or the job would wait in the queue to be refused by its ranks
            checkpoint.refuse_untrusted(group_shared=prepared.plan.group_shared)
    numbers = [one.number for one in submissions(observed.events)]
    changes = _changes(before, plan, prepared)
    if checkpoint is None and from_step is None and not changes:
        _refuse_to_do_it_again(observed)
    number, job_id = 1 + max(numbers, default=0), observed.state.job_id
    had = observed.record.scheduler
    return Resumption(prepared, number, attempt, checkpoint, damaged, changes, had, job_id)


def resume(resumption: Resumption, environ: Mapping[str, str] = os.environ) -> str:
    """Put the new bundle in its place and hand it over; return the job id.

    The intent stands in the folder first, in a file that one client alone can make: of two who
    resume a run at the same moment one is refused. Raises Conflict for that one.
    """
    prepared, number = resumption.prepared, resumption.number
    layout = prepared.layout
    secrets = secret_values(prepared.loaded.spec.secrets, environ)
    prepared.scheduler.check()
    _refuse_beside_a_job(resumption)
    events = _claim(layout, resumption)
    register_run(layout)
    try:
        put_bundle(layout, prepared.bundle, number - 1)
        if secrets:
            replace_file(layout.secrets, secrets_file(secrets), 0o600)
    except OSError as error:
        message = f"{error.filename or layout.root} cannot be written: {error.strerror}"
        events.append("submit_failed", message=message, submission=number)
        raise UserError(f"{message}.", hint="The run stays as it was; make room, and again.") from (
            error
        )
    return hand_over(prepared, layout, secrets, events, submission=number)


def _refuse_beside_a_job(resumption: Resumption) -> None:
    """Whatever the folder says: two jobs of one run would train over each other."""
    prepared = resumption.prepared
    job_id = _living(prepared.scheduler, resumption)
    if job_id is None and resumption.scheduler != prepared.plan.scheduler:
        from orchestrator.schedulers.registry import get

        with contextlib.suppress(UserError):  # it may be another machine's
            job_id = _living(get(resumption.scheduler), resumption)
    if job_id is not None:
        raise Conflict(
            f"{prepared.layout.run_id} has not ended: its job {job_id} is in the queue.",
            hint=f"`scancel {job_id}` ends it without ptx; then resume the run.",
        )


def _living(scheduler: Scheduler, resumption: Resumption) -> str | None:
    return scheduler.living(resumption.prepared.layout.run_id, resumption.job_id)


def _claim(layout: RunLayout, resumption: Resumption) -> ClientEvents:
    plan = resumption.prepared.plan
    fields = {
        "scheduler": plan.scheduler,
        "launcher": plan.launcher,
        "nodes": plan.nodes,
        "procs_per_node": plan.procs_per_node,
        "world_size": plan.world_size,
        "attempt": resumption.attempt,
        "resume_from": plan.resume_from,
        "changes": [list(change) for change in resumption.changes],
    }
    try:
        return ClientEvents.claim(layout, resumption.number, **fields, **vars(this_process()))
    except FileExistsError as error:
        raise Conflict(
            f"Somebody else resumes {layout.run_id} at this moment.",
            hint=f"`ptx status {name_of(layout)}` shows how it goes on.",
        ) from error
    except OSError as error:
        raise UserError(
            f"{layout.events} cannot be written: {error.strerror}.",
            hint="Only the run's owner, or its group where the spec shares it, can resume it.",
        ) from error


def _refuse_unless_ended(run: Observed, troubles: tuple[str, ...]) -> None:
    state, name = run.state, name_of(run.layout)
    if state.final:
        return
    if state.state in (State.SUBMITTING, State.PENDING, State.RUNNING):
        raise Conflict(
            f"{run.record.run_id} has not ended: it is {state.words}",
            hint=f"`ptx cancel {name}` ends it; `ptx wait {name}` waits for its end.",
        )
    comes_back = run.job is not None and run.job.state in MAY_COME_BACK
    if comes_back or not seems_over(run, troubles):
        raise Conflict(
            f"{run.record.run_id} may not have ended: it is {state.words}",
            hint=f"`ptx cancel {name}` makes sure of its end; then resume it.",
        )


def _refuse_to_do_it_again(run: Observed) -> None:
    if run.state.state == State.COMPLETED:
        name = name_of(run.layout)
        raise Conflict(
            f"{run.record.run_id} has completed and left no checkpoint to go on from.",
            hint=f"`ptx resume {name} --from 0` does all of it once more, in the same folder; "
            "`ptx submit` begins a new run.",
        )


def _refuse_other_sharing(before: JobSpec, after: JobSpec) -> None:
    if before.share != after.share:
        raise UserError(
            "`share` is settled when a run is submitted: its folder has the permissions of then.",
            hint="Leave it as it is, or submit a new run.",
        )


def _specs(layout: RunLayout, choices: Choices) -> tuple[JobSpec, Any]:
    """The run's resolved spec, and the same with what is changed."""
    from orchestrator.saves import save_of_run
    from orchestrator.spec.loader import load

    path = current_bundle(layout) / "spec.yaml"
    with open_file(path):  # a pipe there would be waited for for ever
        pass
    return load(path).spec, load(path, choices.overrides(), save=lambda _: save_of_run(layout))


def _continued(
    root: Path, resume_from: Mapping[str, int] | None
) -> tuple[Listed | None, tuple[Listed, ...]]:
    """As the ranks will choose, but that they compare hashes too."""
    damaged: list[Listed] = []
    for one in newest_first(root, resume_from):
        if one.resumes:
            return one, tuple(damaged)
        if one.eligible and one.folder.committed:
            damaged.append(one)
    return None, tuple(damaged)


def _none_whole(layout: RunLayout, damaged: Sequence[Listed]) -> UserError:
    for one in damaged:
        if one.away:
            return UserError(
                f"{layout.run_id} cannot go on from a checkpoint at the moment: {one.problem}",
                hint="It may be whole: look at that file system, and resume then.",
            )
    return DamagedCheckpoint(
        f"All checkpoints of {layout.run_id} are damaged; the newest: {damaged[0].problem}",
        hint=f"`ptx resume {name_of(layout)} --from 0` begins anew.",
    )


def _changes(before: JobSpec, plan: Mapping[str, Any], prepared: Prepared) -> tuple[Change, ...]:
    old = dict(_flat(before.model_dump(mode="json")))
    new = dict(_flat(prepared.loaded.spec.model_dump(mode="json")))
    found = [
        (key, old.get(key), new.get(key))
        for key in (*new, *(key for key in old if key not in new))
        if old.get(key) != new.get(key)
    ]
    if plan.get("global_batch") not in (None, prepared.plan.global_batch):
        found.append(("global batch", plan["global_batch"], prepared.plan.global_batch))
    return tuple(found)


def _flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        inner = [
            _flat(below, f"{path}.{key}" if path else str(key)) for key, below in value.items()
        ]
        return [row for rows in inner for row in rows]
    return [(path, value)]
