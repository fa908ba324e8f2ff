"""Making a run folder: whole and private, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import Conflict, UserError
from orchestrator.render.bundle import Bundle
from orchestrator.runs.files import make_folder, sync_folder, write_new
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import RunRecord
from orchestrator.runs.root import absolute


@dataclass(frozen=True)
class Modes:
    folder: int
    file: int

    @property
    def executable(self) -> int:
        return self.file | (0o110 if self.file & 0o060 else 0o100)


_PRIVATE = Modes(0o700, 0o600)
# Set-group-id on folders: what agents write later belongs to the group too.
_GROUP = Modes(0o2770, 0o660)


def create_run(
    record: RunRecord,
    bundle: Bundle,
    spec_text: bytes,
    *,
    secrets: Mapping[str, str],
    group_shared: bool,
    intend: Callable[[], object],
) -> RunLayout:
    """Write everything of a run to `bundle.run_dir`, durably.

    `intend` notes who is about to submit it: a run that has a record has that note, too.
    Secret values go to a 0600 file, outside the bundle. Raises Conflict where the run exists
    and UserError where the folder cannot be made; then nothing of it is left.
    """
    folder = absolute(str(bundle.run_dir), "the run folder")
    layout = RunLayout(folder)
    modes = _GROUP if group_shared else _PRIVATE
    try:
        _make_root(folder.parent, modes)
    except OSError as error:
        raise _cannot(folder, error) from error
    try:
        make_folder(folder, modes.folder)
    except FileExistsError as error:
        raise Conflict(
            f"A run {layout.run_id} exists already in {folder.parent}.",
            hint="Submit again without --run-id; every run gets a fresh id.",
        ) from error
    except OSError as error:
        raise _cannot(folder, error) from error
    try:
        if group_shared:
            _give_to_group_of(folder.parent, folder)
        _fill(layout, bundle, spec_text, secrets, modes)
        intend()
        # Last: a folder with a run.json is a run, one without is the debris of a crash.
        write_new(layout.record, record.to_json().encode(), modes.file)
        for made in (layout.root, layout.root.parent):
            sync_folder(made)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise _cannot(folder, error) from error
    except BaseException:  # Ctrl-C as well: half a run folder helps nobody
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return layout


def modes_of(layout: RunLayout) -> Modes:
    """As the run's folder was made."""
    return _GROUP if layout.root.stat().st_mode & 0o020 else _PRIVATE


def write_bundle(folder: Path, bundle: Bundle, modes: Modes) -> None:
    """Into `folder`, which is there and empty, durably. Raises OSError."""
    for file in bundle:
        mode = modes.executable if file.executable else modes.file
        write_new(folder / file.path, file.data, mode)
    sync_folder(folder)


def secrets_file(values: Mapping[str, str]) -> bytes:
    """`NAME=value`, each ended by NUL."""
    return b"".join(
        f"{name}={value}".encode("utf-8", "surrogateescape") + b"\0"
        for name, value in values.items()
    )


def _fill(
    layout: RunLayout,
    bundle: Bundle,
    spec_text: bytes,
    secrets: Mapping[str, str],
    modes: Modes,
) -> None:
    for folder in (layout.bundle, layout.events, layout.root / "attempts"):
        make_folder(folder, modes.folder)
    write_bundle(layout.bundle, bundle, modes)
    write_new(layout.spec, spec_text, modes.file)
    if secrets:
        write_new(layout.secrets, secrets_file(secrets), 0o600)


def _make_root(root: Path, modes: Modes) -> None:
    """The folder for runs: as private as the run when ptx makes it, else as the person made it."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        make_folder(root, modes.folder)
    if not os.access(root, os.W_OK | os.X_OK):
        raise PermissionError(13, "no permission to write", str(root))


def _give_to_group_of(root: Path, folder: Path) -> None:
    """A root without the set-group-id bit leaves a new folder to the person's own first group."""
    os.chown(folder, -1, root.stat().st_gid)
    folder.chmod(_GROUP.folder)  # the change of group may have taken the bit away


def _cannot(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"The run folder {folder} cannot be written: {error.strerror or error}.",
        hint="Choose another place with --runs DIR or PTX_RUNS.",
    )
