"""How an error is told: one sentence and the way out, or one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import typer

from orchestrator.cli.output import emit_json, note, paint_error
from orchestrator.errors import UserError


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
    usage = UserError(error.format_message(), hint=f"`{command} --help` shows how it is used.")
    usage.exit_code = error.exit_code
    return report(usage, as_json=as_json)


def tell(message: str, hint: str | None) -> None:
    note(f"{paint_error('error:')} {message}")
    if hint:
        note(f"hint: {hint}")
