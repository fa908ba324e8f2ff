"""`ptx validate`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from orchestrator.cli.errors import tell
from orchestrator.cli.options import Json
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.spec_options import Settings, spec_path
from orchestrator.errors import UserError

_NAMED = 3
"""Specs for which the next command is said."""


def validate(
    spec: Annotated[list[str], typer.Argument(metavar="SPEC...", help="One YAML spec or more.")],
    setting: Settings = None,
    as_json: Json = False,
) -> int:
    """Check specs and show every error at once; exit with 2 if there is any.

    \b
    Examples:
      ptx validate job.yaml
      ptx validate jobs/*.yaml
      ptx validate job.yaml --set resources.nodes=4
    """
    rows = [_validate(text, setting or [], as_json=as_json) for text in spec]
    bad = sum(not row["valid"] for row in rows)
    if as_json:
        emit_json({"specs": rows})
    else:
        _tell_all(rows)
    return 2 if bad else 0


def _tell_all(rows: Sequence[Mapping[str, Any]]) -> None:
    """How many are valid, which are not, and what to type for those first named."""
    bad = [row["spec"] for row in rows if not row["valid"]]
    if len(rows) > 1 and bad:
        good = f"{len(rows) - len(bad)} valid, " if len(bad) < len(rows) else "none valid, "
        note(f"{len(rows)} specs: {good}{len(bad)} with errors: {', '.join(bad)}")
    elif len(rows) > 1:
        note(f"{len(rows)} specs, all valid")
    if not bad:
        named = (shlex.quote(row["spec"]) for row in rows[:_NAMED])
        next_commands(*(f"ptx submit {name} --dry-run" for name in named))


def _validate(text: str, settings: list[str], *, as_json: bool) -> dict[str, Any]:
    from orchestrator.runs.root import runs_root
    from orchestrator.saves import save_of_name
    from orchestrator.spec.diagnostics import Diagnostic, SpecError
    from orchestrator.spec.loader import load

    found: tuple[Diagnostic, ...] = ()
    error: UserError | None = None
    try:
        save = partial(save_of_name, runs_root())
        found = load(spec_path(text), settings, save=save).warnings
    except SpecError as wrong:
        found, error = wrong.diagnostics, wrong
    except UserError as wrong:
        error = wrong
    if not as_json:
        for diagnostic in found:
            note(diagnostic.text() + "\n")
        if error is None:
            emit(f"{text}: valid")
        else:
            tell(error.message, error.hint)
    return {
        "spec": text,
        "valid": error is None,
        "message": error.message if error else None,
        "diagnostics": [diagnostic.to_json() for diagnostic in found],
    }
