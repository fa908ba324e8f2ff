"""The arguments of a script, checked against the model that the script itself declares.

Nothing of the script is run but the body of its module-level `class Args(BaseModel)` and of
the literals, enums and models beside it that this class refers to.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.isolated import CannotEvaluate, evaluate_class
from orchestrator.spec.job import JobSpec
from orchestrator.spec.words import closest, shown

CLASS = "Args"
_AT = ("entrypoint", "args")
_MAX_BYTES = 4 << 20


class ArgsCheck(NamedTuple):
    findings: list[Finding] = []
    booleans: frozenset[str] = frozenset()
    """Names for which false has a flag of its own, `--no-name`."""


def check_args(spec: JobSpec, context: Context) -> ArgsCheck:
    """Check `entrypoint.args`; a class that cannot be evaluated alone is a warning."""
    if spec.entrypoint.script is None:
        return ArgsCheck()
    try:
        model = model_of(context.folder / spec.entrypoint.script)
    except CannotEvaluate as error:
        return ArgsCheck([_unchecked(str(error))])
    if model is None:
        return ArgsCheck()
    args = spec.entrypoint.args
    findings = _check(model, args) if isinstance(args, dict) else []
    return ArgsCheck(findings, boolean_names(model))


def model_of(script: Path) -> type[BaseModel] | None:
    """The script's `Args`, or None where it has none. Raises CannotEvaluate."""
    try:
        text = script.read_bytes()
    except OSError:
        return None  # its absence is an error of its own
    if b"class " + CLASS.encode() not in text or len(text) > _MAX_BYTES:
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CannotEvaluate(f"the script is no valid Python: {error}") from None
    found = evaluate_class(tree, CLASS)
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def boolean_names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(
        info.alias or name
        for name, info in model.model_fields.items()
        if info.annotation is bool or set(get_args(info.annotation)) == {bool, type(None)}
    )


def _check(model: type[BaseModel], args: Mapping[str, Any]) -> list[Finding]:
    known = {info.alias or name for name, info in model.model_fields.items()}
    if model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name"):
        known |= set(model.model_fields)
    findings = []
    if model.model_config.get("extra") != "allow":
        findings = [_unknown(key, known) for key in args if key not in known]
    # null leaves an argument out; the script's own default stands then.
    given = {key: value for key, value in args.items() if key in known and value is not None}
    try:
        model.model_validate(given, strict=False)
    except ValidationError as error:
        findings += [_finding(one) for one in error.errors(include_url=False)]
    except Exception as error:  # a validator of the script's own may raise anything
        findings.append(_unchecked(f"its validator raised {type(error).__name__}: {error}"))
    return findings


def _unknown(key: str, known: set[str]) -> Finding:
    match = closest(key, known)
    help_ = f"did you mean {match}?" if match else f"it takes: {', '.join(sorted(known))}"
    return Finding(
        (*_AT, key),
        f"the script's {CLASS} has no {shown(key)}",
        help_,
        "unknown-arg",
        at_key=True,
    )


def _finding(error: Any) -> Finding:
    from orchestrator.spec.sentences import plain_sentence

    if error["type"] == "missing":
        name = str(error["loc"][-1])
        return Finding(
            _AT,
            f"the script needs the argument {shown(name)}",
            f"add `{name}: ...` to entrypoint.args",
            "missing-arg",
            at_key=True,
        )
    return Finding(
        (*_AT, *error["loc"]),
        plain_sentence(".".join(str(part) for part in error["loc"][:1]) or CLASS, error),
        None,
        "bad-arg",
    )


def _unchecked(reason: str) -> Finding:
    return Finding(
        ("entrypoint", "script"),
        f"the args are not checked, because the script's {CLASS} cannot be read alone: {reason}",
        f"let {CLASS} need nothing but pydantic, typing, enum, pathlib and what stands beside it",
        "args-unchecked",
        warning=True,
    )
