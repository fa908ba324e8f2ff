"""What is run on every rank."""

from __future__ import annotations

from orchestrator.spec.base import Model, Text

Scalar = bool | int | float | Text


class Entrypoint(Model):
    """Exactly one of script, module and command."""

    script: Text | None = None
    """Path of a Python script, relative to the spec's own folder."""
    module: Text | None = None
    """Python module, run as `python -m module`."""
    command: list[Text] | None = None
    """Any program with its arguments, run once a rank without Python."""
    args: dict[Text, Scalar | list[Scalar] | None] | list[Text] = {}
    """Arguments: a list goes verbatim; a mapping becomes `--key=value` (true: `--key`;
    false and null: left out, or `--no-key` where the entrypoint's own `Args` model has a
    boolean of that name; a list: `--key a b`). A script that declares a module-level class
    `Args(BaseModel)` has its args checked against it before anything is submitted."""
