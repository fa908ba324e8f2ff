"""The commands, each in a module that is imported only when its command is typed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from orchestrator.cli.plain_values import PlainCommand, PlainGroup

COMMANDS = {
    "submit": "Submit a spec: start it here, or hand it to SLURM.",
    "status": "Show all runs in a table, or everything about one.",
    "why": "Say why a run failed, hangs, waits or is slow.",
    "logs": "Show what the ranks print, merged in time order.",
    "plot": "Draw loss, throughput, memory and GPU use of runs.",
    "top": "Show a live table of a run's nodes and ranks.",
    "metrics": "Print a run's metrics as JSON, CSV or for Prometheus.",
    "wait": "Wait until a run has ended; exit with 0 if it completed.",
    "cancel": "Cancel runs.",
    "resume": "Start a run that has ended again, from its checkpoints.",
    "checkpoints": "List, verify, convert, export and prune a run's checkpoints.",
    "validate": "Check specs and show every error at once.",
    "render": "Print or write everything that a spec would run.",
    "gpus": "Show this machine's GPUs and who holds which.",
    "schema": "Print the JSON Schema of the spec.",
}
"""Name -> one line of help. `orchestrator/cli/NAME.py` holds the function NAME, or a table VERBS of
commands below it."""

# Typer's markup and tracebacks would import rich, which costs more than all of `ptx --help`.
_PLAIN: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}


class LazyGroup(PlainGroup):
    """Lists commands by their line of help, and imports the one that is typed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else listed, rest


def load(name: str) -> Any:
    """The command itself, with its options; for one with verbs, the group of them."""
    module = import_module(f"orchestrator.cli.{name}")
    verbs: dict[str, tuple[Callable[..., Any], str]] = getattr(module, "VERBS", {})
    single = typer.Typer(cls=PlainGroup, **_PLAIN)
    for verb, (function, line) in verbs.items():
        single.command(verb, cls=PlainCommand, short_help=line)(function)
    if verbs:
        single.callback()(getattr(module, name))
    else:
        single.command(name, cls=PlainCommand)(getattr(module, name))
    return typer.main.get_command(single)


def build() -> Any:
    """The whole application, ready to be called with arguments."""
    group = typer.Typer(cls=LazyGroup, **_PLAIN)
    group.callback()(ptx)
    application: Any = typer.main.get_command(group)
    for name, line in COMMANDS.items():
        application.add_command(TyperCommand(name, help=line, rich_markup_mode=None))
    return application


def ptx(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    """Distributed PyTorch training from one YAML spec: validated, submitted, seen through.

    \b
    Examples:
      ptx submit jobs/quickstart.yaml --follow
      ptx status @last
      ptx logs @last --follow
    """
