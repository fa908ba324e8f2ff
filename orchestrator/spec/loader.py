"""From a YAML file to a JobSpec, or to everything that is wrong with it.

What only a broken spec, an override or a script with a model of its own needs is imported
where it is needed: a good spec is loaded by every command that starts a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.spec.checks import CHECKS, Context, Finding
from orchestrator.spec.compose import Mapping, Node, Scalar, compose, plain_value
from orchestrator.spec.diagnostics import Diagnostic, SpecError
from orchestrator.spec.job import JobSpec
from orchestrator.spec.locate import Location, locate
from orchestrator.spec.source import Source, decode, read
from orchestrator.spec.warning import MeasuredSave

if TYPE_CHECKING:
    from orchestrator.spec.overrides import Override

# difflib takes milliseconds a key, and nobody reads on after this many errors.
MAX_SHOWN = 100
_EXAMPLE = "a spec begins with `name: my-run` and `entrypoint: {script: train.py}`"


@dataclass(frozen=True)
class LoadedSpec:
    spec: JobSpec
    text: bytes
    """The file, byte for byte; overrides are in `spec` alone."""
    path: Path
    warnings: tuple[Diagnostic, ...] = ()
    boolean_args: frozenset[str] = frozenset()
    """Args of the entrypoint that are switched off with `--no-name`."""


def load(
    path: Path,
    overrides: Sequence[str | Override] = (),
    *,
    save: Callable[[str], MeasuredSave | None] = lambda _: None,
) -> LoadedSpec:
    """Read, validate and check a spec. Raises SpecError with all that is wrong.

    `overrides` are `key.path=value` texts, or Override objects for options with names of
    their own. The only things looked at outside the file are the entrypoint's script and the
    names of the installed launchers and schedulers; and `save`, by which checks ask how long a
    save of an earlier run of this name took.
    """
    data = read(path)
    source = decode(path, data)
    root, problems = _tree(source, overrides)
    if root is None:
        raise SpecError(problems or [_empty(source)])
    if not isinstance(root, Mapping):
        raise SpecError([*problems, _not_a_mapping(root)])
    spec, broken, wrong = _validate(root)
    problems += wrong
    context = Context(path.absolute().parent, Path.cwd(), save)
    findings = [
        finding
        for check in CHECKS
        if all(_is_trusted(read, broken) for read in check.reads)
        for finding in check.function(spec, context)
    ]
    booleans: frozenset[str] = frozenset()
    if spec.entrypoint.script is not None and _is_trusted("entrypoint", broken):
        from orchestrator.spec.entrypoint_args import check_args

        found, booleans = check_args(spec, context)
        findings += found
    diagnostics = [*problems, *(_place(root, finding) for finding in findings)]
    errors = [one for one in diagnostics if one.severity == "error"]
    if errors:
        raise SpecError(_ordered(errors)[:MAX_SHOWN])
    warnings = tuple(_ordered([one for one in diagnostics if one.severity == "warning"]))
    return LoadedSpec(spec, data, path, warnings, booleans)


def _tree(
    source: Source, overrides: Sequence[str | Override]
) -> tuple[Node | None, list[Diagnostic]]:
    root, problems = compose(source)
    if problems and root is None:
        return None, problems
    found: list[Diagnostic] = []
    if overrides:
        from orchestrator.spec.overrides import apply, parse

        typed = [parse(one) if isinstance(one, str) else one for one in overrides]
        root, found = apply(root, typed)
    if isinstance(root, Scalar) and root.value is None:
        root = None
    return root, problems + found


def _validate(root: Mapping) -> tuple[JobSpec, set[Location], list[Diagnostic]]:
    """The spec or what is sound of it, the paths that are not, and what is wrong with them."""
    try:
        return JobSpec.model_validate(plain_value(root)), set(), []
    except ValidationError as error:
        errors: list[Any] = error.errors(include_url=False)
    from orchestrator.spec.explain import explain
    from orchestrator.spec.partial import sound_part

    return *sound_part(root, errors), explain(root, errors)[:MAX_SHOWN]


def _is_trusted(read: str, broken: set[Location]) -> bool:
    """Whether the dotted path and all below it are as the person wrote them."""
    parts = tuple(read.split("."))
    return not any(path[: len(parts)] == parts[: len(path)] for path in broken)


def _place(root: Node, finding: Finding) -> Diagnostic:
    place = locate(root, finding.path)
    # `launcher: torchrn` has no key `name`, but its one word is what is meant.
    is_missing = len(place.path) < len(finding.path) and isinstance(place.node, Mapping)
    return place.diagnostic(
        finding.code,
        finding.message,
        finding.help,
        at_key=is_missing or finding.at_key,
        severity="warning" if finding.warning else "error",
    )


def _ordered(diagnostics: list[Diagnostic]) -> list[Diagnostic]:
    """As they stand in the file, options last; the same thing is said once."""
    unique = dict.fromkeys(diagnostics)
    return sorted(unique, key=lambda one: (one.line is None, one.line or 0, one.column))


def _empty(source: Source) -> Diagnostic:
    return source.diagnostic(1, 1, "empty", "the file holds nothing", _EXAMPLE)


def _not_a_mapping(root: Node) -> Diagnostic:
    what = "one word" if isinstance(root, Scalar) else "a list"
    return root.source.diagnostic(
        root.line, root.column, "not-a-mapping", f"a spec is made of keys; this is {what}", _EXAMPLE
    )
