"""A bundle on stdout, in a folder, and as JSON."""

from __future__ import annotations

from pathlib import Path
from shlex import join
from typing import Any

from orchestrator.cli.output import emit, emit_bytes
from orchestrator.errors import Conflict, UserError
from orchestrator.render.bundle import Bundle, BundleFile


def print_bundle(bundle: Bundle) -> None:
    """Each file below a line `# ==> path`, byte for byte; a binary one by size and hash."""
    for file in bundle:
        if file.binary:
            emit(f"# ==> {file.path} ({len(file.data)} bytes, sha256 {file.sha256})")
        else:
            emit(f"# ==> {file.path}")
            emit_bytes(file.data if file.data.endswith(b"\n") else file.data + b"\n")
    emit("# ==> command that submits it")
    emit(join(bundle.submit_argv))


def bundle_fields(bundle: Bundle) -> dict[str, Any]:
    return {
        "run_id": bundle.run_id,
        "run_dir": str(bundle.run_dir),
        "scheduler": bundle.scheduler,
        "submit_argv": list(bundle.submit_argv),
        "files": [_file_fields(file) for file in bundle],
    }


def write_bundle(bundle: Bundle, folder: Path) -> list[Path]:
    """Write every file into `folder`, which may exist; raises UserError, Conflict."""
    return [write_file(folder, file) for file in bundle]


def write_file(folder: Path, file: BundleFile) -> Path:
    path = folder / file.path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            out.write(file.data)
        if file.executable:
            path.chmod(path.stat().st_mode | 0o111)
    except FileExistsError as error:
        raise Conflict(f"{path} exists already.", hint="Name a new folder with -o.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def _file_fields(file: BundleFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "bytes": len(file.data),
        "sha256": file.sha256,
        "executable": file.executable,
        "text": None if file.binary else file.data.decode("utf-8", "replace"),
    }
