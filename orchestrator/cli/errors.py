"""How an error is told: one sentence and the way out, or one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import typer

from orchestrator.cli.output import emit_json, note
from orchestrator.errors import UserError

_CHANGING = ("cancel", "resume", "prune")
"""Commands for which nobody is told to take whatever run is the newest."""


class Diagnostic(Protocol):
    def text(self) -> str: ...
    def to_json(self) -> dict[str, Any]: ...


def report(error: UserError, *, as_json: bool) -> int:
    """Tell a user's error; return its exit code."""
    # SpecError has them; importing it here would cost every command the spec's modules.
    diagnostics: Sequence[Diagnostic] = getattr(error, "diagnostics", ())
    if as_json:
        emit_json({"error": error_fields(error)})
        return error.exit_code
    for diagnostic in diagnostics:
        note(diagnostic.text() + "\n")
    tell(error.message, error.hint)
    return error.exit_code


def error_fields(error: UserError) -> dict[str, Any]:
    diagnostics: Sequence[Diagnostic] = getattr(error, "diagnostics", ())
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "diagnostics": [diagnostic.to_json() for diagnostic in diagnostics],
    }


def report_usage(error: typer.TyperException, *, as_json: bool) -> int:
    """Tell what is wrong with the command line itself."""
    command = getattr(getattr(error, "ctx", None), "command_path", "ptx")
    message, hint = error.format_message(), f"`{command} --help` shows how it is used."
    if message.startswith("Missing argument 'RUN") and not command.endswith(_CHANGING):
        hint = f"`{command} @last` takes the newest run, and `{command} --help` tells more."
    usage = UserError(message, hint=hint)
    usage.exit_code = error.exit_code
    return report(usage, as_json=as_json)


def tell(message: str, hint: str | None) -> None:
    note(message, label="error:", colour="red")
    if hint:
        note(hint, label="hint:")
