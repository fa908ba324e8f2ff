"""The trained model as a folder of files: complete, or not there at all."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from orchestrator.errors import UserError
from orchestrator.runs.files import put_folder, sync_tree
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.plan import TrainingPlan

State = dict[str, torch.Tensor]
_ABANDONED_S = 3600.0
"""Seconds without a change, after which nobody writes a folder any more."""
_SCRATCH = re.compile(r"\.(?P<name>.+)\.(?P<kind>new|old)-[0-9a-f]{32}")
_MARKS = ("config.json", "adapter_config.json", "delta.json", "byte_model.json")


class SavedForm(Protocol):
    """Which tensors of a model are saved, and as which files."""

    names: frozenset[str]
    """Of the tensors, in the model's own state dict."""
    what: str
    """In words, for the log."""

    def write(self, folder: Path, state: State, *, home: Path, step: int) -> None:
        """Write files into `folder`, which is there and will be moved to `home`."""

    def describe(self, folder: Path) -> dict[str, Any]:
        """Write into `folder` what the form can be made of again, and return the rest of it."""


def output_folder(output: str | None, plan: TrainingPlan) -> Path | None:
    """Where the trained model goes: `output`, else `model` in the run's folder, else nowhere.

    Raises UserError where something stands there that is no saved model and so not replaced.
    """
    if output is not None:
        folder = Path(output).absolute()
    elif plan.run_dir is not None:
        folder = plan.run_dir / "model"
    else:
        return None
    if folder.exists() and not _replaceable(folder):
        raise UserError(
            f"{folder} is there and holds no saved model, so it is not replaced by one",
            hint="give another folder as output",
        )
    return folder


def write_model(
    form: SavedForm,
    state: State,
    folder: Path,
    *,
    step: int,
    beside: Callable[[Path], None] = lambda _: None,
    group_shared: bool = False,
) -> None:
    """Write a trained model's gathered tensors as `folder`; rank 0 alone calls it.

    `beside` adds what belongs to it, as a tokenizer. A reader finds the old folder, the new one
    whole, or for a moment none; a failure leaves the old one. Raises TrainingFailed where the
    disk is full or gone.
    """
    _check_whole(form, state)
    try:
        with replacing(folder, group_shared=group_shared) as new:
            form.write(new, state, home=folder, step=step)
            beside(new)
    except OSError as error:
        raise TrainingFailed(
            f"rank 0: cannot write {form.what} to {folder}: {error.strerror or error}",
            hint="the training is done and its result is lost",
        ) from error


def _check_whole(form: SavedForm, state: State) -> None:
    """A shard written in place of its tensor would look like a model."""
    if state.keys() != form.names:
        different = sorted(state.keys() ^ form.names)
        raise RuntimeError(f"gathered other tensors than the model has: {different[:5]}")
    empty = [name for name, tensor in state.items() if tensor.numel() == 0 or tensor.is_meta]
    if empty:
        raise RuntimeError(f"gathered tensors without content: {empty[:5]}")


def _replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    names = {entry.name for entry in folder.iterdir()}
    return not names or not names.isdisjoint(_MARKS)


@contextmanager
def replacing(folder: Path, *, group_shared: bool) -> Iterator[Path]:
    """Yields a new folder, which takes the place of `folder` once it is whole and on disk."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_abandoned(folder)
    # No number of a process: in a container, or on another node, the next one has the same.
    unique = uuid.uuid4().hex
    new, old = (folder.with_name(f".{folder.name}.{kind}-{unique}") for kind in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if group_shared:
            for path in (*new.rglob("*"), new):
                path.chmod(0o2770 if path.is_dir() else 0o660)
        sync_tree(new)
        put_folder(new, folder, aside=old)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _clear_abandoned(folder: Path) -> None:
    """What a writer that was killed has left, once nobody can be at work on it any more: as large
    as the model, for each time. Where it died between the two renames, the old one comes back."""
    for left in folder.parent.iterdir():
        match = _SCRATCH.fullmatch(left.name)
        if match is None or match["name"] != folder.name:
            continue
        with suppress(FileNotFoundError):
            # A rename changes ctime alone.
            newest = max(path.stat().st_ctime for path in (left, *left.rglob("*")))
            if time.time() - newest < _ABANDONED_S:
                continue
            if match["kind"] == "old" and not folder.exists():
                left.rename(folder)
            else:
                shutil.rmtree(left, ignore_errors=True)
