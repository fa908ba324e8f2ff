"""`ptx render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.bundle_text import bundle_fields, print_bundle, write_bundle, write_file
from orchestrator.cli.options import Json, Runs
from orchestrator.cli.output import emit, emit_bytes, emit_json, next_commands
from orchestrator.cli.spec_options import (
    Gpus,
    Launcher,
    Name,
    Nodes,
    RunId,
    Scheduler,
    Settings,
    SpecArgument,
    spec_path,
)
from orchestrator.preparation import Choices, Prepared, prepare, standalone_script
from orchestrator.render.bundle import BundleFile
from orchestrator.runs.root import runs_root


def render(
    spec: SpecArgument,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="One sbatch file that needs no ptx on the cluster.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="DIR", help="Write the files here instead."),
    ] = None,
    nodes: Nodes = None,
    gpus: Gpus = None,
    launcher: Launcher = None,
    scheduler: Scheduler = None,
    setting: Settings = None,
    name: Name = None,
    runs: Runs = None,
    run_id: RunId = None,
    as_json: Json = False,
) -> None:
    """Print or write everything that a spec would run; nothing is submitted.

    \b
    Examples:
      ptx render jobs/ddp.yaml --nodes 2
      ptx render job.yaml -o rendered/
      ptx render job.yaml --scheduler slurm --standalone > job.sbatch
    """
    choices = Choices(nodes, gpus, launcher, scheduler, name, tuple(setting or ()))
    prepared = prepare(spec_path(spec), choices, runs_root(runs), run_id)
    folder = Path(output) if output is not None else None
    if standalone:
        _standalone(prepared, folder, as_json=as_json)
    else:
        _bundle(prepared, folder, as_json=as_json)


def _bundle(prepared: Prepared, folder: Path | None, *, as_json: bool) -> None:
    paths = write_bundle(prepared.bundle, folder) if folder else []
    if as_json:
        written = [str(path) for path in paths]
        emit_json({**bundle_fields(prepared.bundle), "written": written, "standalone": None})
    elif folder:
        emit("\n".join(str(path) for path in paths))
        next_commands(f"ptx submit {prepared.loaded.path}")
    else:
        print_bundle(prepared.bundle)


def _standalone(prepared: Prepared, folder: Path | None, *, as_json: bool) -> None:
    file = BundleFile(f"{prepared.plan.name}.sbatch", standalone_script(prepared), executable=True)
    path = write_file(folder, file) if folder else None
    if as_json:
        written = [str(path)] if path else []
        emit_json({"written": written, "standalone": file.data.decode("utf-8", "replace")})
    elif path:
        emit(str(path))
        next_commands(f"sbatch {path}")
    else:
        emit_bytes(file.data)
