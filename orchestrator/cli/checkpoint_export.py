"""`ptx checkpoints export`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

import orchestrator
from orchestrator.checkpoints.names import step_folder
from orchestrator.cli.checkpoint_run import CheckpointRun, Output, Step, new_folder
from orchestrator.cli.checkpoints_text import folder_fields
from orchestrator.cli.options import Json, RunArgument, Runs
from orchestrator.cli.output import emit, emit_json, note
from orchestrator.errors import Conflict, JobFailed, UserError

# As a local run's supervisor is started: the folder it is typed in may hold an `orchestrator`.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import orchestrator; del sys.path[0]; "
    "from orchestrator.training.checkpoint.export import main; sys.exit(main(sys.argv[2:]))"
)
_ROOT = Path(orchestrator.__file__).resolve().parent.parent


def export_checkpoint(
    run: RunArgument,
    output: Output,
    step: Step = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Put an adapter or a delta into its base model.")
    ] = False,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Write a checkpoint as the model that training would have left: other programs load it.

    A whole model in Hugging Face's format with its tokenizer, an adapter as peft saves it, or what
    a partial fine-tuning trained. Needs PyTorch in the Python of ptx.

    \b
    Examples:
      ptx checkpoints export @last --output my-model
      ptx checkpoints export llama-lora-4f --step 2000 --merged --output merged/
    """
    about = CheckpointRun.of(run, runs)
    about.choice(step).chosen()  # what is wrong with it is told before torch is loaded
    folder = new_folder(output)
    if folder.exists():
        raise Conflict(f"{folder} exists already.", hint="Name a new folder.")
    if find_spec("torch") is None:
        raise UserError(
            f"Exporting needs PyTorch, and {sys.executable} has none.",
            hint="pip install 'ptx[train]', or type it where the run's Python has ptx.",
        )
    told = _export(about.layout.root, folder, step, merged=merged)
    taken = step_folder(about.root, told["step"], told["attempt"])
    if as_json:
        emit_json(
            {
                "run_id": about.layout.run_id,
                "checkpoint": folder_fields(taken),
                "output": str(folder),
                "what": told["what"],
                "tensors": told["tensors"],
            }
        )
        return
    emit(f"{folder}: {told['what']} after step {taken.step}, {told['tensors']} tensors")
    if told["note"]:
        note(f"note: {told['note']}")


def _export(run: Path, output: Path, step: int | None, *, merged: bool) -> dict[str, Any]:
    argv = [sys.executable, "-P", "-c", _START, str(_ROOT), str(run), str(output)]
    which = [] if step is None else [f"--step={step}"]
    done = subprocess.run(
        [*argv, *which, *(["--merged"] if merged else [])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        told: dict[str, Any] = json.loads(last)
    except ValueError as error:
        tail = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise JobFailed(f"Exporting failed: {tail[0]}") from error
    if "error" in told:
        raise JobFailed(_sentence(told["error"]), hint=told["hint"])
    return told


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
