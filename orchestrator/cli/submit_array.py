"""`ptx submit --array`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.array_submission import INDEX, Array, prepare_array
from orchestrator.array_submission import submit_array as hand_over
from orchestrator.cli.bundle_text import bundle_fields, print_bundle
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.submit import warn
from orchestrator.preparation import Choices


def submit_array(
    spec: Path, choices: Choices, root: Path, size: str, *, dry_run: bool, as_json: bool
) -> int:
    """Prints the id of each run."""
    array = prepare_array(spec, choices, root, size)
    warn(array.first)
    if not any(INDEX in one for one in choices.settings):
        note(
            f"note: the runs differ in nothing; --set training.seed={INDEX} would give each a seed "
            "of its own"
        )
    if dry_run:
        _print(array, as_json=as_json)
        return 0
    job_ids = hand_over(array)
    if as_json:
        emit_json(_fields(array, job_ids, dry_run=False))
        return 0
    for run in array.runs:
        emit(run.layout.run_id)
    name = array.first.plan.name
    next_commands(
        f"ptx status --name '{name}'",
        f"ptx logs {array.first.layout.run_id} --follow",
        f"ptx cancel {array.name}",
    )
    return 0


def _print(array: Array, *, as_json: bool) -> None:
    if as_json:
        emit_json(_fields(array, [None] * len(array.runs), dry_run=True))
        return
    print_bundle(array.first.bundle)
    note(
        f"this is the first of {len(array.runs)} runs; nothing was submitted; without --dry-run "
        "all of them run, under fresh run ids"
    )


def _fields(array: Array, job_ids: Sequence[str | None], *, dry_run: bool) -> dict[str, object]:
    both = zip(array.runs, job_ids, strict=True)
    runs = [{"job_id": job_id, **bundle_fields(run.bundle)} for run, job_id in both]
    return {"dry_run": dry_run, "array": array.name, "runs": runs}
