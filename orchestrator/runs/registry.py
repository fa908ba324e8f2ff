"""Which runs there are and where they lie, so that a run id works from any folder."""

from __future__ import annotations

import os
import re
import shlex
from difflib import get_close_matches
from pathlib import Path

from orchestrator.errors import Conflict, NotFound, UserError
from orchestrator.runs.files import replace
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import RunRecord, read_record
from orchestrator.runs.root import registry_folder, runs_root

_LAST = re.compile(r"@last(?:~(\d{1,6}))?")
_SHOWN = 8


def register(layout: RunLayout) -> None:
    """Note where a run lies; the file bears its id. Raises OSError."""
    folder = registry_folder()
    _make_private(folder)
    replace(folder / layout.run_id, os.fsencode(layout.root) + b"\n", 0o600)


def _make_private(folder: Path) -> None:
    """With its parents 0700 too, as the XDG specification wants them, whatever the umask."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def resolve(text: str, *, root: Path | None = None) -> RunLayout:
    """The run that `text` means: an id, a unique prefix of one, @last, @last~1, or a path.

    `root` limits the search to one folder for runs; otherwise the registry and the current root
    are searched. Raises NotFound, or Conflict where a prefix fits several runs.
    """
    if "/" in text or text in (".", ".."):
        return _at_path(text)
    if text.startswith("@"):
        return _by_age(text, root)
    found = _folders(root)
    exact = found.get(text)
    if exact is not None and _exists(exact):
        return RunLayout(exact)
    matches = [
        name for name in sorted(found) if text and name.startswith(text) and _exists(found[name])
    ]
    if len(matches) == 1:
        return RunLayout(found[matches[0]])
    if matches:
        shown = ", ".join(matches[:_SHOWN]) + (", …" if len(matches) > _SHOWN else "")
        raise Conflict(
            f"{text!r} fits {len(matches)} runs: {shown}.", hint="Type more characters of the id."
        )
    raise NotFound(f"There is no run {text!r}.", hint=_did_you_mean(text, found))


def name_of(layout: RunLayout) -> str:
    """What to type for a run: its id, or its path (for a shell) where the id does not lead there:
    in another root, or moved."""
    found = _folders(None).get(layout.run_id)
    return layout.run_id if found == layout.root else shlex.quote(str(layout.root))


def all_runs(*, root: Path | None = None) -> list[tuple[RunRecord, RunLayout]]:
    """Every run that still has its folder, newest first."""
    runs = []
    for folder in _folders(root).values():
        layout = RunLayout(folder)
        record = read_record(layout)
        if record is not None:
            runs.append((record, layout))
    return sorted(runs, key=lambda run: (run[0].created, run[0].run_id), reverse=True)


def _folders(root: Path | None) -> dict[str, Path]:
    """Run id -> folder, dangling ones included: whether a folder is there costs a look at it."""
    folders = _registered() if root is None else {}
    home = runs_root() if root is None else root
    for name in _names(home):
        if not name.startswith("."):
            folders[name] = home / name
    return folders


def _registered() -> dict[str, Path]:
    folder = registry_folder()
    rows = {}
    for name in _names(folder):
        if name.startswith("."):
            continue  # a row being written
        try:
            target = (folder / name).read_bytes().rstrip(b"\n")
        except OSError:
            continue
        if target.startswith(b"/") and b"\0" not in target:
            rows[name] = Path(os.fsdecode(target))
    return rows


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - thousands of runs: names alone are cheap
    except OSError:
        return []


def _exists(folder: Path) -> bool:
    """As far as this user can see: in a root that many share, most runs are others' own."""
    return os.access(RunLayout(folder).record, os.R_OK)


def _at_path(text: str) -> RunLayout:
    if "\0" in text:
        raise UserError(f"{text!r} is not a path.")
    layout = RunLayout(Path(os.path.abspath(text)))  # noqa: PTH100 - resolve() follows links
    if _exists(layout.root):
        return layout
    try:
        layout.record.stat()
    except PermissionError:
        raise UserError(
            f"The run folder {text} is another user's, and private.",
            hint="`share: group` in the spec lets the group look at a run.",
        ) from None
    except (OSError, ValueError):
        pass
    raise NotFound(
        f"There is no run folder at {text}.",
        hint="A run folder holds a run.json; see `ptx status`.",
    )


def _by_age(text: str, root: Path | None) -> RunLayout:
    match = _LAST.fullmatch(text)
    if match is None:
        raise UserError(
            f"{text!r} names no run.", hint="@last is the newest run, @last~1 the one before it."
        )
    back = int(match[1] or 0)
    runs = all_runs(root=root)
    if back >= len(runs):
        raise NotFound(
            f"There is no run {text}: ptx knows of {len(runs)}."
            if runs
            else "There are no runs yet.",
            hint="Start one with `ptx submit jobs/quickstart.yaml`."
            if not runs
            else "See `ptx status`.",
        )
    return runs[back][1]


def _did_you_mean(text: str, found: dict[str, Path]) -> str:
    close = [
        name for name in get_close_matches(text, found, n=3, cutoff=0.6) if _exists(found[name])
    ]
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return "`ptx status` lists the runs; --runs DIR looks in another folder."
