"""A checkpoint as what training would have left: `python -m ... RUN OUTPUT [--step=N] [--merged]`.

Run by `ptx checkpoints export` in a process of its own, since the command line imports no torch.
Which checkpoint is chosen here: by the time torch is loaded, a run that goes on may have deleted
the one that was its newest. Prints one line of JSON: {"what", "tensors", "note", "step",
"attempt"}, or {"error", "hint"} and exit code 1.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from orchestrator.checkpoints.choose import Choice
from orchestrator.checkpoints.listing import Listed
from orchestrator.checkpoints.manifest import Manifest, read_manifest
from orchestrator.checkpoints.verify import refuse_damage, while_read
from orchestrator.checkpoints.whole import Checkpoint
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import read_plan
from orchestrator.training.checkpoint.description import (
    copy_beside,
    described_form,
    description_of,
    read_description,
)
from orchestrator.training.checkpoint.rank_file import DTYPES
from orchestrator.training.language.forms import MAX_SHARD
from orchestrator.training.language.pretrained import load_config, quiet
from orchestrator.training.language.saved import load_saved
from orchestrator.training.output import SavedForm, State, replacing, write_model

_MODEL = "model/"


def export(run: Path, checkpoint: Path, output: Path, *, merged: bool) -> dict[str, Any]:
    """Write the model of a checkpoint to `output`, put there once it is whole; what it is.

    Raises UserError for a run without a model description, a model whose frozen part is nowhere,
    and DamagedCheckpoint.
    """
    with while_read(checkpoint):
        manifest = read_manifest(checkpoint)
    description = description_of(run, manifest.attempt)
    facts = read_description(description)
    if merged and facts["form"] not in ("adapter", "delta"):
        raise UserError(
            "--merged puts an adapter or a delta into its base, and this run trains a whole model",
            hint="leave --merged out",
        )
    note = _find_base(run, facts, merged=merged)
    refuse_damage(checkpoint, manifest)
    form = described_form(description, facts)
    state = _state(checkpoint, manifest, form)

    def write(folder: Path) -> None:
        write_model(
            form,
            state,
            folder,
            step=manifest.step,
            beside=lambda new: copy_beside(description, new),
        )

    if not merged:
        write(output)
        return {"what": form.what, "tensors": len(state), "note": note}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        trained = Path(scratch) / "trained"
        write(trained)
        model = _merged(trained, facts["base"])
    with replacing(output, group_shared=False) as new, quiet():
        model.save_pretrained(new, max_shard_size=MAX_SHARD)
        copy_beside(description, new)
    return {"what": "the merged model", "tensors": len(model.state_dict()), "note": note}


def _state(folder: Path, manifest: Manifest, form: SavedForm) -> State:
    with while_read(folder), Checkpoint(folder, manifest) as checkpoint:
        missing = sorted(n for n in form.names if _MODEL + n not in checkpoint.tensors)
        if missing:
            raise UserError(
                f"the checkpoint has no {missing[0]}"
                + (f" and lacks {len(missing) - 1} more tensors" if len(missing) > 1 else "")
                + ": what is not trained is in no checkpoint",
                hint="`ptx checkpoints convert --weights-only` writes what was trained",
            )
        return {name: _tensor(checkpoint, _MODEL + name) for name in sorted(form.names)}


def _tensor(checkpoint: Checkpoint, key: str) -> torch.Tensor:
    stored = checkpoint.tensors[key]
    data = checkpoint.read(key)
    if not len(data):
        return torch.empty(stored.shape, dtype=DTYPES[stored.dtype])
    return torch.frombuffer(data, dtype=DTYPES[stored.dtype]).view(stored.shape)


def _merged(trained: Path, base: str) -> Any:
    """The base, in its own precision, with what was trained put into it."""
    dtype = load_config(base).dtype
    known = dtype if isinstance(dtype, torch.dtype) else torch.float32
    return load_saved(str(trained), base=base, dtype=known).model


def _find_base(run: Path, facts: dict[str, Any], *, merged: bool) -> str | None:
    """Where an adapter's base is that the run has made itself; in words, if it is nowhere yet."""
    if facts["form"] != "adapter" or facts["base_is_saved"]:
        return None
    base = run / "model" / "base"
    if base.is_dir():
        facts["base"] = str(base)
        return None
    words = "the adapter's base was made by the run itself, which saves it when it completes"
    if merged:
        raise UserError(words, hint="export without --merged, or after the end of the run")
    return words


def export_chosen(run: Path, output: Path, step: int | None, *, merged: bool) -> dict[str, Any]:
    """The same of the checkpoint of a step, or of the newest; and which it was."""
    layout = RunLayout(run)

    def act(one: Listed) -> dict[str, Any]:
        told = export(run, one.folder.path, output, merged=merged)
        return told | {"step": one.folder.step, "attempt": one.folder.attempt}

    return Choice.of(layout, read_plan(layout), step).read_by(act)


def main(argv: Sequence[str]) -> int:
    run, output = (Path(text) for text in argv[:2])
    steps = (text.removeprefix("--step=") for text in argv[2:] if text.startswith("--step="))
    step = next((int(text) for text in steps), None)
    try:
        told = export_chosen(run, output, step, merged="--merged" in argv[2:])
    except UserError as error:
        told = {"error": error.message, "hint": error.hint}
    sys.stdout.write(json.dumps(told) + "\n")
    return 1 if "error" in told else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
