"""The options with which `submit` and `render` change a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import note
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
    """Where the spec lies, with a word about it where that is not where it was looked for."""
    path, shipped = find_spec(text)
    if shipped:
        note(f"{text} is not in this folder; taking the one that ships with ptx: {path}")
    return path
