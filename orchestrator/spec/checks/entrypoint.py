"""What is run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.words import closest, listed, shown

_WAYS = ("script", "module", "command")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_ARG = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SHELLS = {".sh": "bash", ".bash": "bash", ".zsh": "zsh", ".pl": "perl", ".rb": "ruby"}


def exactly_one(spec: JobSpec, _: Context) -> Iterator[Finding]:
    given = [way for way in _WAYS if getattr(spec.entrypoint, way) is not None]
    if not given:
        yield Finding(
            ("entrypoint",),
            "entrypoint says nothing to run",
            "add one of script, module and command, as `script: train.py`",
            "missing-key",
            at_key=True,
        )
    elif len(given) > 1:
        yield Finding(
            ("entrypoint", given[1]),
            f"entrypoint has {listed(given, 'and')}, and only one of them can be run",
            "keep one",
            at_key=True,
        )
    if spec.entrypoint.command is not None and not (
        spec.entrypoint.command and spec.entrypoint.command[0]
    ):
        yield Finding(
            ("entrypoint", "command"),
            "entrypoint.command has no program",
            'write the program first, as [python, train.py, "--lr", "0.1"]',
            "bad-value",
        )


def script_exists(spec: JobSpec, context: Context) -> Iterator[Finding]:
    script = spec.entrypoint.script
    if script is None:
        return
    path = context.folder / script
    at = ("entrypoint", "script")
    # Path's own methods raise below a folder that may not be entered.
    if os.path.isdir(path):  # noqa: PTH112
        yield Finding(at, f"{shown(script)} is a folder", _guess(script, context), "script-missing")
    elif not os.path.isfile(path):  # noqa: PTH113
        yield Finding(
            at,
            f"there is no script {shown(script)} in the spec's own folder, {context.folder}",
            _guess(script, context),
            "script-missing",
        )
    elif shell := _SHELLS.get(path.suffix):
        yield Finding(
            at,
            f"{shown(script)} is no Python script, and script runs Python",
            f"write `command: [{shell}, {script}]`",
            "script-not-python",
        )


def _guess(script: str, context: Context) -> str:
    if context.cwd != context.folder and os.path.isfile(context.cwd / script):  # noqa: PTH113
        return f"it is in {context.cwd}; paths in a spec count from the spec's folder"
    parent = (context.folder / script).parent
    try:
        names = [entry.name for entry in parent.iterdir() if entry.suffix == ".py"]
    except OSError:
        return "paths in a spec count from the spec's folder"
    if match := closest(
        parent.name if os.path.isdir(parent / script) else script.split("/")[-1],  # noqa: PTH112
        names,
    ):
        return f"did you mean {'/'.join([*script.split('/')[:-1], match])}?"
    return "paths in a spec count from the spec's folder"


def module_is_a_name(spec: JobSpec, _: Context) -> Iterator[Finding]:
    module = spec.entrypoint.module
    if module is None or (_MODULE.fullmatch(module) and not module.endswith(".py")):
        return
    is_path = "/" in module or module.endswith(".py")
    yield Finding(
        ("entrypoint", "module"),
        f"{shown(module)} is not the name of a Python module",
        f"for a path write `script: {module}`" if is_path else "write it as package.module",
        "bad-value",
    )


def args_are_keys(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if not isinstance(spec.entrypoint.args, dict):
        return
    for key in spec.entrypoint.args:
        if _ARG.fullmatch(key):
            continue
        plain = key.lstrip("-")
        help_ = "letters, digits, dots, dashes and underscores make an argument's name"
        if plain != key and _ARG.fullmatch(plain):
            help_ = f"leave out the dashes: `{plain}:` becomes --{plain}"
        yield Finding(
            ("entrypoint", "args", key),
            f"{shown(key)} cannot be the name of an argument",
            help_,
            "bad-value",
            at_key=True,
        )
