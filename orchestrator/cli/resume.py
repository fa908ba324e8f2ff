"""`ptx resume`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.checkpoints.listing import Listed
from orchestrator.cli.checkpoints_text import folder_fields, strategy_words
from orchestrator.cli.options import Json, RunArgument, Runs, only_root
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.spec_options import Nodes, Settings
from orchestrator.cli.submit import refuse_together, warn
from orchestrator.preparation import Choices
from orchestrator.resumption import Resumption, prepare_resumption
from orchestrator.runs.registry import name_of, resolve


def resume(
    run: RunArgument,
    from_step: Annotated[
        int | None,
        typer.Option(
            "--from",
            metavar="STEP",
            min=0,
            help="Go back to this step's checkpoint; 0 begins anew. Default: the newest.",
        ),
    ] = None,
    setting: Settings = None,
    nodes: Nodes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print everything that would run, and stop.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Watch it; Ctrl-C leaves it running.")
    ] = False,
    runs: Runs = None,
    as_json: Json = False,
) -> int:
    """Start a run that has ended again, in its own folder, from its newest whole checkpoint.

    Its spec is the one that it was submitted with, and what --set changes: strategy, nodes and
    learning rate may be others. Checkpoints beyond --from stay, and nothing continues from them.

    \b
    Examples:
      ptx resume @last --follow
      ptx resume ddp-9x --from 2000 --set training.optimizer.lr=1e-4
      ptx resume ddp-9x --nodes 4 --set strategy=fsdp
    """
    refuse_together(follow=follow, dry_run=dry_run, as_json=as_json)
    layout = resolve(run, root=only_root(runs))
    choices = Choices(nodes=nodes, settings=tuple(setting or ()))
    prepared = prepare_resumption(layout, choices, from_step)
    warn(prepared.prepared)
    if dry_run:
        _print(prepared, as_json=as_json)
        return 0
    from orchestrator.resumption import resume as start_again

    job_id = start_again(prepared)
    if as_json:
        emit_json(_fields(prepared, job_id, dry_run=False))
        return 0
    _tell(prepared)
    emit(layout.run_id)
    name = name_of(layout)
    next_commands(f"ptx status {name}", f"ptx logs {name} --follow", f"ptx cancel {name}")
    if follow:
        from orchestrator.cli.follow import follow as watch

        return watch(layout, prepared.attempt)
    return 0


def _print(resumption: Resumption, *, as_json: bool) -> None:
    from orchestrator.cli.bundle_text import print_bundle

    if as_json:
        emit_json(_fields(resumption, None, dry_run=True))
        return
    print_bundle(resumption.prepared.bundle)
    _tell(resumption)
    note("nothing was submitted; without --dry-run all this runs")


def _tell(resumption: Resumption) -> None:
    """Where it goes on, and what is no longer as it was."""
    attempt = resumption.attempt
    for one in resumption.damaged:
        how = "may be whole" if one.away else "is damaged and passed over"
        note(f"warning: step {one.folder.step} {how}: {one.problem}")
    if resumption.checkpoint is None:
        note(f"attempt {attempt} begins at step 0: {_why_anew(resumption)}")
    else:
        note(f"attempt {attempt} continues from {_words(resumption.checkpoint)}")
    width = max((len(path) for path, _, _ in resumption.changes), default=0)
    for path, old, new in resumption.changes:
        note(f"changed: {path.ljust(width)}  {_value(old)} -> {_value(new)}")


def _words(one: Listed) -> str:
    manifest = one.manifest
    by = f", saved by {_ranks(manifest.world_size)}" if manifest else ""
    how = f" under {strategy_words(manifest.strategy)}" if manifest else ""
    return f"step {one.folder.step} of attempt {one.folder.attempt}{by}{how}"


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"


def _why_anew(resumption: Resumption) -> str:
    plan = resumption.prepared.plan
    if plan.checkpoint["resume"] == "never":
        return "checkpoint.resume is never"
    if plan.resume_from is not None and plan.resume_from["step"] == 0:
        return "--from 0"
    return "there is no whole checkpoint"


def _value(value: Any) -> str:
    return "not set" if value is None else str(value)


def _fields(resumption: Resumption, job_id: str | None, *, dry_run: bool) -> dict[str, Any]:
    from orchestrator.cli.bundle_text import bundle_fields

    checkpoint = resumption.checkpoint
    return {
        "dry_run": dry_run,
        "job_id": job_id,
        "attempt": resumption.attempt,
        "checkpoint": folder_fields(checkpoint.folder) if checkpoint else None,
        "changes": [{"key": key, "old": old, "new": new} for key, old, new in resumption.changes],
        **bundle_fields(resumption.prepared.bundle),
    }
