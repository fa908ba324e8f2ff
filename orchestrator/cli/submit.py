"""`ptx submit`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import Json, Runs
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.spec_options import (
    Gpus,
    Launcher,
    Name,
    Nodes,
    RunId,
    Scheduler,
    Settings,
    SpecArgument,
    spec_path,
)
from orchestrator.errors import UserError
from orchestrator.preparation import Choices, Prepared, prepare
from orchestrator.runs.root import runs_root


def submit(
    spec: SpecArgument,
    nodes: Nodes = None,
    gpus: Gpus = None,
    launcher: Launcher = None,
    scheduler: Scheduler = None,
    setting: Settings = None,
    name: Name = None,
    array: Annotated[
        str | None,
        typer.Option(
            "--array",
            metavar="N[%K]",
            help="N runs as a SLURM job array, K at a time; {index} in --set is a run's number.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print everything that would run, and stop.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Watch it; Ctrl-C leaves it running.")
    ] = False,
    runs: Runs = None,
    run_id: RunId = None,
    as_json: Json = False,
) -> int:
    """Submit a spec: start it on this machine, or hand it to SLURM. Prints the run id.

    \b
    Examples:
      ptx submit jobs/quickstart.yaml --follow
      ptx submit job.yaml --scheduler slurm --nodes 4 --gpus 8 --set training.micro_batch=16
      ptx submit jobs/llama_lora_zero3.yaml --nodes 2 --dry-run
      ptx submit job.yaml --array 8%2 --set training.seed={index}
    """
    refuse_together(follow=follow, dry_run=dry_run, as_json=as_json)
    choices = Choices(nodes, gpus, launcher, scheduler, name, tuple(setting or ()))
    if array is not None:
        from orchestrator.cli.submit_array import submit_array

        if follow or run_id:
            other = "--follow" if follow else "--run-id"
            raise UserError(f"--array and {other} do not go together.", hint="Leave one out.")
        root = runs_root(runs)
        return submit_array(spec_path(spec), choices, root, array, dry_run=dry_run, as_json=as_json)
    prepared = prepare(spec_path(spec), choices, runs_root(runs), run_id)
    warn(prepared)
    if dry_run:
        _print(prepared, as_json=as_json)
        return 0
    job_id = _hand_over(prepared)
    _tell(prepared, job_id, as_json=as_json)
    if follow:
        from orchestrator.cli.follow import follow as watch

        return watch(prepared.layout)
    return 0


def refuse_together(*, follow: bool, dry_run: bool, as_json: bool) -> None:
    """Raise UserError for options that contradict each other."""
    if follow and (dry_run or as_json):
        other = "--dry-run" if dry_run else "--json"
        raise UserError(f"--follow and {other} do not go together.", hint="Leave one of them out.")


def _hand_over(prepared: Prepared) -> str:
    # A dry run writes nothing, and need not wait for what does.
    from orchestrator.submission import submit as hand_over

    return hand_over(prepared)


def warn(prepared: Prepared) -> None:
    for warning in prepared.loaded.warnings:
        note(warning.text())
    if prepared.unread:
        note(
            f"note: {prepared.loaded.spec.entrypoint.script} does not use ptx's training library, "
            "so it must itself read these from the file that PTX_PLAN names: "
            + ", ".join(prepared.unread)
        )


def _print(prepared: Prepared, *, as_json: bool) -> None:
    from orchestrator.cli.bundle_text import bundle_fields, print_bundle

    if as_json:
        emit_json({"dry_run": True, "job_id": None, **bundle_fields(prepared.bundle)})
        return
    print_bundle(prepared.bundle)
    note("nothing was submitted; without --dry-run all this runs, under a fresh run id")


def _tell(prepared: Prepared, job_id: str, *, as_json: bool) -> None:
    from orchestrator.cli.bundle_text import bundle_fields

    if as_json:
        emit_json({"dry_run": False, "job_id": job_id, **bundle_fields(prepared.bundle)})
        return
    run_id = prepared.layout.run_id
    emit(run_id)
    next_commands(f"ptx status {run_id}", f"ptx logs {run_id} --follow", f"ptx cancel {run_id}")
