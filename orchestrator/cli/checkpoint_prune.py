"""`ptx checkpoints prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.checkpoints.prune import Keep, Pruned, prune_all, size_of, to_prune
from orchestrator.cli.checkpoint_run import CheckpointRun
from orchestrator.cli.checkpoints_text import folder_fields
from orchestrator.cli.options import Json, RunArgument, Runs
from orchestrator.cli.output import emit, emit_json, next_commands, note, size
from orchestrator.errors import UserError


def prune_checkpoints(
    run: RunArgument,
    keep_last: Annotated[
        int, typer.Option("--keep-last", metavar="N", min=1, help="How many of the newest stay.")
    ],
    keep_every: Annotated[
        int | None,
        typer.Option("--keep-every", metavar="M", min=1, help="Multiples of this step stay too."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")
    ] = False,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Delete old checkpoints; never the newest one that is whole. Asks nothing.

    That one is read first, every byte. A run that is going on may be pruned too. The best one by
    checkpoint.best of the spec stays; where checkpoint.resume is never, this goes for each attempt.

    \b
    Examples:
      ptx checkpoints prune @last --keep-last 2 --dry-run
      ptx checkpoints prune quickstart-4f --keep-last 1 --keep-every 1000
    """
    about = CheckpointRun.of(run, runs)
    folders = to_prune(
        about.root,
        about.resume_from,
        Keep(keep_last, keep_every, about.settings.get("best")),
        attempt=about.newest_attempt,
        apart=about.begins_anew,
        reads=lambda one: note(
            f"reading step {one.step}, which stays, to be sure that it is whole"
        ),
    )
    gone: list[Pruned] = []

    def tell(pruned: Pruned) -> None:
        gone.append(pruned)
        if not as_json:
            which = f"step {pruned.folder.step} of attempt {pruned.folder.attempt}"
            emit(f"{which}: {'would go' if dry_run else 'deleted'}, {size(pruned.bytes)}")

    if dry_run:
        for folder in folders:
            tell(Pruned(folder, size_of(folder)))
    else:
        try:
            prune_all(folders, tell)
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be deleted: {error.strerror}.",
                hint="Only the run's owner, or its group where the spec shares it, can prune it.",
            ) from error
    freed = sum(pruned.bytes for pruned in gone)
    if as_json:
        rows = [{**folder_fields(one.folder), "bytes": one.bytes} for one in gone]
        emit_json(
            {"run_id": about.layout.run_id, "dry_run": dry_run, "pruned": rows, "bytes": freed}
        )
        return
    if not gone:
        note("Nothing is older than what stays.")
    else:
        note(f"{size(freed)} {'would be' if dry_run else 'were'} freed")
    next_commands(f"ptx checkpoints list {about.name}")
