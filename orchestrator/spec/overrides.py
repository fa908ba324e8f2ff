"""`--set key.path=value` and the options that are short for it."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from orchestrator.spec.compose import Entry, Mapping, Node, Scalar, compose
from orchestrator.spec.diagnostics import Diagnostic
from orchestrator.spec.fields import Kind, spec_fields
from orchestrator.spec.source import Source
from orchestrator.spec.words import shown

# Sections for which one word stands for `{name: word}`.
SHORTHANDS = ("launcher", "strategy")


@dataclass(frozen=True)
class Override:
    label: str
    """What the person typed, as `--nodes 4`; errors name it."""
    path: str
    """Dotted, as `resources.nodes`."""
    value: str
    is_text: bool = False
    """The value is text as it stands; otherwise it is YAML."""


def parse(text: str) -> Override:
    """`resources.nodes=4` -> Override. What is wrong with it is said by `apply`."""
    path, _, value = text.partition("=")
    label = text if len(text) <= 80 else text[:79] + "…"
    return Override(f"--set {label}", path.strip(), value)


def apply(root: Node | None, overrides: Seq[Override]) -> tuple[Node | None, list[Diagnostic]]:
    """Put the values into the tree; the last one wins. An empty tree begins with the first."""
    problems: list[Diagnostic] = []
    for override in overrides:
        source = Source(override.label, override.value, prefix=f"{override.path}=")
        refused = _refuse_path(override, source)
        if refused is None:
            node, found = _value(override, source)
            problems += found
            if node is not None:
                root = _set(root, _keys(override.path), node)
        else:
            problems.append(refused)
    return root, problems


def _value(override: Override, source: Source) -> tuple[Node | None, list[Diagnostic]]:
    if override.is_text:
        found = list(source.forbidden())
        return (None if found else Scalar(source, 1, 1, override.value, plain=False)), found
    node, problems = compose(source)
    if node is None and not problems:
        node = Scalar(source, 1, 1, "", plain=True)
    return node, problems


def _keys(path: str) -> tuple[str, ...]:
    """`env.A` -> (env, A). Keys that the person chooses may hold dots themselves."""
    parts = path.split(".")
    for length in range(1, len(parts)):
        if spec_fields().get(tuple(parts[:length])) is Kind.OPEN:
            return (*parts[:length], ".".join(parts[length:]))
    return tuple(parts)


def _refuse_path(override: Override, source: Source) -> Diagnostic | None:
    option = override.label.startswith("--set ")
    if option and "=" not in override.label:
        return Diagnostic(
            override.label,
            None,
            1,
            "no-value",
            f"{shown(override.path)} has no value",
            "write it as key.path=value, for example resources.nodes=4",
        )
    keys = _keys(override.path)
    kind = spec_fields().get(keys)
    parent = spec_fields().get(keys[:-1]) if len(keys) > 1 else Kind.SECTION
    if kind is not None or (parent is Kind.OPEN and keys[-1]):
        return None
    if parent is Kind.LEAF:
        message = f"{'.'.join(keys[:-1])} has no keys below it"
        return _at_path(source, message, f"write {'.'.join(keys[:-1])}=VALUE")
    from orchestrator.spec import suggest

    message = f"there is no key {shown(override.path)} in a spec"
    return _at_path(source, message, suggest.for_path(override.path))


def _at_path(source: Source, message: str, help_: str) -> Diagnostic:
    whole = (source.prefix or "") + source.text
    return Diagnostic(source.name, None, 1, "unknown-key", message, help_, whole)


def _set(root: Node | None, keys: tuple[str, ...], value: Node) -> Node:
    source = value.source
    if root is None or _is_empty(root):
        root = Mapping(source, 1, 1)
    here: Node = root
    for depth, key in enumerate(keys):
        if not isinstance(here, Mapping):
            return root  # the file itself has something else there, which is said of the file
        entry = here.entries.get(key)
        if depth == len(keys) - 1:
            if not (entry and _same_name(keys, entry.value, value)):
                here.entries[key] = Entry(Scalar(source, 1, 1, key, plain=False), value)
        else:
            section = _section(entry, key, source)
            if entry is None or section is not entry.value:
                name = entry.key if entry else Scalar(source, 1, 1, key, plain=False)
                here.entries[key] = Entry(name, section)
            here = section
    return root


def _section(entry: Entry | None, key: str, source: Source) -> Node:
    """What stands below `key`, made ready to take a key of its own."""
    if entry is None or _is_empty(entry.value):
        return Mapping(source, 1, 1)
    node = entry.value
    if key in SHORTHANDS and isinstance(node, Scalar):
        name = Scalar(node.source, node.line, node.column, "name", plain=False)
        return Mapping(node.source, node.line, node.column, {"name": Entry(name, node)})
    if isinstance(node, Mapping):
        # An alias may share this node with other sections.
        return Mapping(node.source, node.line, node.column, dict(node.entries))
    return node


def _same_name(keys: tuple[str, ...], old: Node, new: Node) -> bool:
    """`--launcher torchrun` over `launcher: {name: torchrun, args: [...]}` keeps the args."""
    if len(keys) != 1 or keys[0] not in SHORTHANDS or not isinstance(old, Mapping):
        return False
    name = old.entries.get("name")
    return (
        name is not None
        and isinstance(name.value, Scalar)
        and isinstance(new, Scalar)
        and name.value.value == new.value
    )


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None
