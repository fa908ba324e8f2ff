"""Folders that are made once and then only read: tokens, and the plans that pack them."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.runs.files import put_folder, sync_tree

MANIFEST = "manifest.json"
_VERSION = 1
_ABANDONED_S = 24 * 3600.0
_WHOLE_BYTES = 64 << 20
_SAMPLE_BYTES = 1 << 20


def cache_root(wanted: str | None, environ: Mapping[str, str]) -> Path:
    """`wanted`, else $PTX_CACHE, else $XDG_CACHE_HOME/ptx/tokens (~/.cache)."""
    if wanted is not None:
        return Path(wanted)
    if environ.get("PTX_CACHE"):
        return Path(environ["PTX_CACHE"])
    home = environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(home, "ptx", "tokens")


def key_of(facts: Any) -> str:
    """A name for what `facts`, as JSON, describe."""
    text = json.dumps([_VERSION, facts], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def made_once(root: Path, key: str, make: Callable[[Path], dict[str, Any]]) -> Path:
    """The folder `root`/`key`, which `make` fills unless it is there and whole.

    `make` is given an empty folder of its own and returns facts for the manifest. The folder gets
    its name by one rename once all of it is on the disk, so nobody sees half of it; whoever comes
    second in a race takes the first one's. One that is damaged is put aside and made again: those
    who have it mapped keep what they see. Raises UserError where the disk does not do its part.
    """
    folder = root / key
    try:
        root.mkdir(parents=True, exist_ok=True)
        if is_whole(folder):
            return folder
        _clear_abandoned(root, key)
        fresh = root / f".{key}.{uuid.uuid4().hex}"
        fresh.mkdir()
        try:
            _seal(fresh, make(fresh))
            _put(fresh, folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot keep tokens in {root}: {error.strerror or error}",
            hint="give a folder with room, with the data's `cache` or PTX_CACHE",
        ) from error
    return folder


def facts_of(folder: Path) -> dict[str, Any]:
    """What the maker said of the folder, from its manifest."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return dict(manifest["facts"])


def is_whole(folder: Path) -> bool:
    """Whether every file has the size and digest that the manifest says.

    The digest of a file over 64 MiB is one over 64 pieces of a MiB, evenly spread: reading
    hundreds of gigabytes again at each start would cost more than tokenising did.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest["files"] == _files(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest; all is on the disk when this returns."""
    text = json.dumps({"version": _VERSION, "files": _files(folder), "facts": facts})
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    sync_tree(folder)


def _put(fresh: Path, folder: Path) -> None:
    damaged = folder.exists() and not is_whole(folder)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        put_folder(fresh, folder, aside=aside if damaged else None)
    except OSError:
        if not is_whole(folder):
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _clear_abandoned(root: Path, key: str) -> None:
    """What a builder that was killed has left, once nobody can be at work on it any more."""
    for folder in root.glob(f".{key}.*"):
        newest = max((path.stat().st_mtime for path in (folder, *folder.iterdir())), default=0.0)
        if time.time() - newest > _ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path) -> dict[str, list[Any]]:
    paths = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    return {path.name: [path.stat().st_size, _digest(path)] for path in paths}


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            digest.update(file.read())
        else:
            pieces = _WHOLE_BYTES // _SAMPLE_BYTES
            for number in range(pieces):
                file.seek(number * (size - _SAMPLE_BYTES) // (pieces - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
