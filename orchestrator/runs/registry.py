"""Which runs there are and where they lie, so that a run id works from any folder."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Container
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import Conflict, NotFound, UserError
from orchestrator.runs.array import element_of
from orchestrator.runs.files import replace
from orchestrator.runs.ids import SUFFIX_LENGTH
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.reading import Mark, read_bytes
from orchestrator.runs.root import registry_folder, runs_root
from orchestrator.runs.spec_given import is_spec, not_a_run

if TYPE_CHECKING:
    from orchestrator.runs.index import Index
    from orchestrator.runs.records import RunRecord

_LAST = re.compile(r"@last(?:~(\d{1,6}))?")
_SHOWN = 8
_LONGEST_PATH = 1 << 14


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
    if is_spec(text):
        raise not_a_run(text, all_runs(root=root))
    if "/" in text or text in (".", ".."):
        return _at_path(text)
    if text.startswith("@"):
        return _by_age(text, root)
    exact = _folder(text, root)
    if exact is not None and _exists(exact):
        return RunLayout(exact)
    names = _all_names(root)
    fitting = [name for name in names if text and name.startswith(text)]
    matches = [name for name in fitting if (path := _folder(name, root)) and _exists(path)]
    if len(matches) == 1:
        return RunLayout(_folder(matches[0], root) or exact or Path(text))
    if matches:
        shown = ", ".join(matches[:_SHOWN]) + (", …" if len(matches) > _SHOWN else "")
        raise Conflict(
            f"{text!r} fits {len(matches)} runs: {shown}.", hint="Type more characters of the id."
        )
    if several := elements(text, root=root):
        raise Conflict(
            f"{text} is an array of {len(several)} runs.",
            hint=f"Name one, as {several[0].run_id}; `ptx status --name "
            f"{text[: -SUFFIX_LENGTH - 1]}` lists them, `ptx cancel` takes the array.",
        )
    raise NotFound(f"There is no run {text!r}.", hint=_did_you_mean(text, names, root))


def elements(array: str, *, root: Path | None = None) -> list[RunLayout]:
    """The runs of an array, in order; [] where there is none of this name."""
    found = [
        (one.number, name)
        for name in _all_names(root)
        if (one := element_of(name)) and one.array == array
    ]
    paths = [_folder(name, root) for _, name in sorted(found)]
    return [RunLayout(path) for path in paths if path and _exists(path)]


def name_of(layout: RunLayout) -> str:
    """What to type for a run: its id, or its path (for a shell) where the id does not lead there:
    in another root, or moved."""
    found = _folder(layout.run_id, None)
    return layout.run_id if found == layout.root else shlex.quote(str(layout.root))


def all_runs(*, root: Path | None = None) -> list[tuple[RunRecord, RunLayout]]:
    """Every run that still has its folder, newest first."""
    from orchestrator.runs.records import read_record

    runs = []
    for path in folders(root):
        layout = RunLayout(path)
        record = read_record(layout)
        if record is not None:
            runs.append((record, layout))
    return sorted(runs, key=lambda run: (run[0].created, run[0].run_id), reverse=True)


def folders(root: Path | None, index: Index | None = None) -> list[str]:
    """Paths of the run folders, dangling ones included: whether one is there costs a look at it.
    What `index` still holds of the registry need not be read again."""
    home = runs_root() if root is None else root
    inside = {name: f"{home}/{name}" for name in _names(home) if not name.startswith(".")}
    rows = _registered(index, inside) if root is None else {}
    elsewhere = {name: path or _row(name) for name, path in rows.items() if name not in inside}
    return [path for path in (elsewhere | inside).values() if path]


def _all_names(root: Path | None) -> list[str]:
    home = runs_root() if root is None else root
    registered = _names(registry_folder()) if root is None else []
    return sorted(name for name in {*registered, *_names(home)} if not name.startswith("."))


def _folder(name: str, root: Path | None) -> Path | None:
    """Where the run of this id lies, or lay: the current folder for runs goes before the
    registry."""
    if not name or "\0" in name or name.startswith("."):
        return None
    home = runs_root() if root is None else root
    if os.path.lexists(home / name):
        return home / name
    row = _row(name) if root is None else None
    return None if row is None else Path(row)


def _registered(index: Index | None, inside: Container[str]) -> dict[str, str]:
    """Run id -> path; "" where that was not read, since the run is `inside` the current folder."""
    folder = registry_folder()
    found = Mark.of(str(folder))
    mark = None if found is None else (found.inode, found.mtime_ns)
    if index is not None and mark is not None and mark == index.registry:
        return index.registered
    known = {} if index is None else index.registered
    rows = {}
    for name in _names(folder):
        if name.startswith("."):
            continue  # a row being written
        path = known.get(name) or ("" if name in inside else _row(name))
        if path is not None:
            rows[name] = path
    if index is not None:
        index.register(rows, found)
    return rows


def _row(name: str) -> str | None:
    """What the registry says of one run."""
    try:
        target = read_bytes(registry_folder() / name, _LONGEST_PATH).rstrip(b"\n")
    except (OSError, ValueError):
        return None
    if not target.startswith(b"/") or b"\0" in target:
        return None
    return os.fspath(Path(os.fsdecode(target)))


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
    if not runs and any(_exists(Path(path)) for path in folders(root)):
        raise NotFound(
            "There is no run that can be read.", hint="`ptx status` names one that cannot."
        )
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


def _did_you_mean(text: str, names: list[str], root: Path | None) -> str:
    alike = get_close_matches(text, names, n=3, cutoff=0.6)
    close = [name for name in alike if (path := _folder(name, root)) and _exists(path)]
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return "`ptx status` lists the runs; --runs DIR looks in another folder."
