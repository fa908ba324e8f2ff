"""`ptx checkpoints list`."""

from __future__ import annotations

import time
from dataclasses import replace

from orchestrator.checkpoints.trust import WAY_OUT
from orchestrator.cli.checkpoint_run import CheckpointRun
from orchestrator.cli.checkpoints_text import checkpoint_fields, checkpoint_table, state_of
from orchestrator.cli.options import Json, RunArgument, Runs
from orchestrator.cli.output import emit, emit_json, next_commands, note


def list_checkpoints(run: RunArgument, runs: Runs = None, as_json: Json = False) -> None:
    """Show a run's checkpoints, newest first; its next start continues from `next start`.

    \b
    Examples:
      ptx checkpoints list @last
      ptx checkpoints list quickstart-4f --json
    """
    about = CheckpointRun.of(run, runs)
    found = about.listing()
    if about.begins_anew:
        found = [replace(one, resumes=False) for one in found]
    shared = about.group_shared
    why = {one.folder: one.why_untrusted(group_shared=shared) for one in found if one.whole}
    if as_json:
        rows = [checkpoint_fields(one, why.get(one.folder)) for one in found]
        emit_json({"run_id": about.layout.run_id, "checkpoints": rows})
        return
    if not found:
        note(f"{about.layout.run_id} has no checkpoints.")
        next_commands(f"ptx status {about.name}")
        return
    emit(checkpoint_table(found, why, time.time()))
    for one in found:
        if state_of(one, None) == "damaged":
            note(f"warning: {one.problem}")
    untrusted = list(dict.fromkeys(sentence for sentence in why.values() if sentence is not None))
    for sentence in untrusted:
        note(f"warning: {sentence}")
    if untrusted:
        note(WAY_OUT, label="hint:")
    if about.begins_anew:
        note("note: checkpoint.resume is never, so a start begins anew")
    next_commands(f"ptx checkpoints verify {about.name}")
