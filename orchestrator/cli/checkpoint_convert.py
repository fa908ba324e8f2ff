"""`ptx checkpoints convert`."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.checkpoints.convert import Converted, convert
from orchestrator.checkpoints.listing import Listed
from orchestrator.cli.checkpoint_run import CheckpointRun, Output, Step, new_folder
from orchestrator.cli.checkpoints_text import folder_fields
from orchestrator.cli.options import Json, RunArgument, Runs
from orchestrator.cli.output import emit, emit_json, size


def convert_checkpoint(
    run: RunArgument,
    output: Output,
    step: Step = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="The model's tensors, without the optimizer's.")
    ] = False,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Write a checkpoint as whole tensors in safetensors files, whatever ranks had saved it.

    With the optimizer's state, manifest and all, for programs that read safetensors: ptx itself
    goes on from the run's own checkpoints, whatever strategy saved them. `export` makes a model
    that other programs load.

    \b
    Examples:
      ptx checkpoints convert @last --output whole/
      ptx checkpoints convert @last --step 300 --weights-only --output weights/
    """
    about = CheckpointRun.of(run, runs)
    folder = new_folder(output)

    def convert_it(one: Listed) -> tuple[Listed, Converted]:
        if one.manifest is None:
            raise AssertionError("a chosen checkpoint has its manifest")
        return one, convert(one.folder.path, one.manifest, folder, weights_only=weights_only)

    one, done = about.choice(step).read_by(convert_it)
    if as_json:
        emit_json(
            {
                "run_id": about.layout.run_id,
                "checkpoint": folder_fields(one.folder),
                "output": str(folder),
                "tensors": done.tensors,
                "bytes": done.bytes,
                "files": [file.name for file in done.files],
            }
        )
        return
    count = "1 file" if len(done.files) == 1 else f"{len(done.files)} files"
    emit(f"{folder}: step {one.folder.step}, {done.tensors} tensors, {count}, {size(done.bytes)}")
