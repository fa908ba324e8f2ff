"""From the spec's entrypoint to the argument vector of a rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.plan.paths import absolute
from orchestrator.spec.entrypoint import Entrypoint, Scalar

PYTHON = "{python}"
"""Stands for the interpreter that launch.sh finds after the setup lines."""


def entrypoint_argv(
    entrypoint: Entrypoint, spec_dir: Path, boolean_args: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """`boolean_args` are the names for which false has a flag of its own, `--no-name`."""
    args = tuple(_args(entrypoint.args, boolean_args))
    if entrypoint.script is not None:
        return (PYTHON, "-u", str(absolute(spec_dir, entrypoint.script)), *args)
    if entrypoint.module is not None:
        return (PYTHON, "-u", "-m", entrypoint.module, *args)
    return (*(entrypoint.command or ()), *args)


def _args(
    args: dict[str, Scalar | list[Scalar] | None] | list[str], boolean_args: frozenset[str]
) -> Iterator[str]:
    if isinstance(args, list):
        yield from args
        return
    for key, value in args.items():
        if value is None:
            continue
        if isinstance(value, list):
            yield f"--{key}"
            yield from (_text(item) for item in value)
        elif value is True:
            yield f"--{key}"
        elif value is False:
            if key in boolean_args:
                yield f"--no-{key}"
        else:
            yield f"--{key}={_text(value)}"


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
