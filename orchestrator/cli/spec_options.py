"""The options with which `submit` and `render` change a spec."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import note
from orchestrator.errors import UserError
from orchestrator.preparation import find_spec

SpecArgument = Annotated[
    str, typer.Argument(metavar="SPEC", help="The YAML spec; jobs/NAME.yaml also means ptx's own.")
]
Nodes = Annotated[
    int | None, typer.Option("--nodes", metavar="N", help="resources.nodes of the spec.")
]
Gpus = Annotated[
    str | None,
    typer.Option("--gpus", metavar="N", help="resources.gpus_per_node: a number, or auto."),
]
Launcher = Annotated[
    str | None,
    typer.Option("--launcher", metavar="NAME", help="torchrun, accelerate or deepspeed."),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="NAME", help="local or slurm.")
]
Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Name; the run id begins with it.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any key of the spec, as training.seed=1. Repeatable."
    ),
]
RunId = Annotated[str | None, typer.Option("--run-id", hidden=True)]


def spec_path(text: str) -> Path:
    """Where the spec lies, with a word about it where that is not where it was looked for. Raises
    UserError for a run."""
    path, shipped = find_spec(text)
    if not os.path.isfile(path):  # noqa: PTH113 - Path's own raises for a name that is too long
        _refuse_run(text)
    if shipped:
        note(f"{text} is not in this folder; taking the one that ships with ptx: {path}")
    return path


def _refuse_run(text: str) -> None:
    from orchestrator.runs.registry import name_of, resolve
    from orchestrator.runs.spec_given import is_spec

    try:
        layout = None if is_spec(text) else resolve(text)
    except UserError:
        return  # it is no run either
    prefix = layout is not None and text != layout.run_id and layout.run_id.startswith(text)
    if layout is not None and not prefix:
        name = name_of(layout)
        raise UserError(
            f"{text} is a run, and a spec is wanted here.",
            hint=f"`ptx resume {name}` starts it again, `ptx status {name}` shows its spec.",
        )
