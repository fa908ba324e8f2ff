"""`ptx checkpoints verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from orchestrator.checkpoints.trust import WAY_OUT
from orchestrator.checkpoints.verify import Verdict, verify
from orchestrator.cli.checkpoint_run import CheckpointRun
from orchestrator.cli.checkpoints_text import folder_fields
from orchestrator.cli.errors import tell
from orchestrator.cli.options import Json, RunArgument, Runs
from orchestrator.cli.output import emit, emit_json, next_commands, note, size


def verify_checkpoints(
    run: RunArgument,
    step: Annotated[
        int | None, typer.Option("--step", metavar="N", min=0, help="Only this step. Default: all.")
    ] = None,
    runs: Runs = None,
    as_json: Json = False,
) -> int:
    """Read every file again: sizes and hashes; exit with 1 if anything is damaged.

    Also where others than you could have written it: a start refuses that. What has no manifest
    was never finished, and is no damage.

    \b
    Examples:
      ptx checkpoints verify @last
      ptx checkpoints verify quickstart-4f --step 300
    """
    about = CheckpointRun.of(run, runs)
    finished = [one for one in about.listing() if one.folder.committed]
    chosen = [one for one in finished if step in (None, one.folder.step)]
    if not chosen and step is not None:
        chosen = [about.choice(step).chosen()]  # which says what there is
    verdicts: list[Verdict] = []
    for one in chosen:
        verdict = verify(one, group_shared=about.group_shared)
        if verdict is None:
            note(f"step {one.folder.step} of attempt {one.folder.attempt}: deleted meanwhile")
            continue
        verdicts.append(verdict)
        if not as_json:
            _tell(verdict)
    bad = not all(verdict.good for verdict in verdicts)
    if as_json:
        rows = [_fields(verdict) for verdict in verdicts]
        emit_json({"run_id": about.layout.run_id, "checkpoints": rows})
    elif not verdicts:
        note(f"{about.layout.run_id} has no finished checkpoints.")
    else:
        _tell_end(verdicts, about.name)
    return 1 if bad else 0


def _tell(verdict: Verdict) -> None:
    folder = verdict.folder
    which = f"step {folder.step} of attempt {folder.attempt}"
    for problem in verdict.problems:
        tell(f"{problem}.", None)
    for warning in verdict.warnings:
        tell(f"{warning}.", None)
    if verdict.problems:
        emit(f"{which}: damaged")
    else:
        word = "untrusted" if verdict.warnings else "whole"
        count = "1 file" if verdict.files == 1 else f"{verdict.files} files"
        emit(f"{which}: {word}, {count}, {size(verdict.bytes)}")


def _tell_end(verdicts: Sequence[Verdict], name: str) -> None:
    if all(verdict.good for verdict in verdicts):
        return
    if any(verdict.warnings for verdict in verdicts):
        note(WAY_OUT, label="hint:")
    damaged = [verdict for verdict in verdicts if verdict.problems]
    if damaged and len(damaged) < len(verdicts):
        note("A start passes over what is damaged and takes the newest that is whole.")
    next_commands(f"ptx checkpoints list {name}")


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {
        **folder_fields(verdict.folder),
        "whole": not verdict.problems,
        "files": verdict.files,
        "bytes": verdict.bytes,
        "problems": list(verdict.problems),
        "warnings": list(verdict.warnings),
    }
