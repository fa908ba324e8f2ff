"""From YAML text to a tree whose every node knows its place.

Built from PyYAML's parser events instead of its composer: the C composer overflows the
stack on deep nesting, the last duplicate key wins there without a word, and aliases could
expand to any size before anybody looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from orchestrator.spec.diagnostics import Diagnostic
from orchestrator.spec.scalars import Value, resolve
from orchestrator.spec.source import Source
from orchestrator.spec.syntax import syntax_error
from orchestrator.spec.words import shown

MAX_DEPTH = 50
MAX_NODES = 10_000


@dataclass(slots=True)
class Node:
    source: Source
    line: int
    column: int
    height: int = field(default=1, init=False)


@dataclass(slots=True)
class Scalar(Node):
    text: str
    plain: bool

    @property
    def value(self) -> Value:
        return resolve(self.text) if self.plain else self.text


@dataclass(slots=True)
class Sequence(Node):
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Entry:
    key: Scalar
    value: Node


@dataclass(slots=True)
class Mapping(Node):
    entries: dict[str, Entry] = field(default_factory=dict)


def plain_value(node: Node) -> Any:
    """The tree as dicts, lists and scalars; a trap stays an object that no field accepts."""
    if isinstance(node, Mapping):
        return {key: plain_value(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain_value(item) for item in node.items]
    assert isinstance(node, Scalar)  # noqa: S101 - the only kinds there are
    return node.value


@dataclass(slots=True)
class _Open:
    """A container that is being filled, and the key that waits for its value."""

    node: Mapping | Sequence
    anchor: str | None
    size_before: int
    key: Node | None = None


class _Stop(Exception):
    """The text cannot be composed any further; its last diagnostic says why."""


def compose(source: Source) -> tuple[Node | None, list[Diagnostic]]:
    """The one document in `source` and everything that is wrong with its form.

    The node is None where the text is empty or cannot be composed to its end.
    """
    problems = list(source.forbidden())
    if problems:
        return None, problems
    composer = _Composer(source)
    try:
        composer.run()
    except _Stop:
        return None, composer.problems
    return composer.root, composer.problems


def _events(source: Source) -> Iterator[Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return iter(yaml.parse(source.text, Loader=loader))


class _Composer:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Diagnostic] = []
        self.root: Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._size = 0
        self._documents = 0

    def run(self) -> None:
        import yaml

        try:
            for event in _events(self.source):
                self._take(event)
        except yaml.YAMLError as error:
            self.problems.append(syntax_error(self.source, error))
            raise _Stop from None

    def _take(self, event: Any) -> None:
        import yaml

        match event:
            case yaml.ScalarEvent():
                self._refuse_tag(event, event.implicit[0] or event.implicit[1])
                plain = event.implicit[0]
                self._count(event, 1)
                node = Scalar(self.source, *_place(event), event.value, plain)
                self._anchor(event.anchor, node, 1)
                self._add(node)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._refuse_tag(event, event.implicit)
                self._begin(event, isinstance(event, yaml.MappingStartEvent))
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self._stop(
                        event,
                        "several-documents",
                        "a spec is one document; a second one begins here",
                        "remove the line --- and what follows, or keep it in a file of its own",
                    )

    def _begin(self, event: Any, is_mapping: bool) -> None:
        self._count(event, 1)
        if len(self._open) >= MAX_DEPTH:
            self._too_deep(event)
        node = (Mapping if is_mapping else Sequence)(self.source, *_place(event))
        self._open.append(_Open(node, event.anchor, self._size - 1))

    def _end(self) -> None:
        done = self._open.pop()
        self._anchor(done.anchor, done.node, self._size - done.size_before)
        self._add(done.node)

    def _alias(self, event: Any) -> None:
        name = event.anchor
        if any(opened.anchor == name for opened in self._open):
            self._stop(
                event,
                "recursive-alias",
                f"*{name} stands inside the very value that &{name} names",
                "write the value out",
            )
        if name not in self._anchors:
            self._stop(
                event,
                "unknown-alias",
                f"*{name} refers to an anchor that is not there",
                f'text that begins with * needs quotes: "*{name}"',
            )
        node, size = self._anchors[name]
        self._count(event, size)
        if len(self._open) + node.height > MAX_DEPTH:
            self._too_deep(event)
        self._add(node)

    def _add(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        opened = self._open[-1]
        parent = opened.node
        parent.height = max(parent.height, node.height + 1)
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif opened.key is None:
            opened.key = node
        else:
            key, opened.key = opened.key, None
            self._enter(parent, key, node)

    def _enter(self, parent: Mapping, key: Node, value: Node) -> None:
        if not isinstance(key, Scalar):
            self._problem(
                key, "key-not-text", "a key is a word, not a list or a mapping", _KEY_VALUE
            )
        elif key.text == "<<" and key.plain:
            self._problem(
                key, "merge-key", "merge keys (<<) are not supported", "write the keys out"
            )
        elif not isinstance(key.value, str) and key.text.lower() not in _WORD_KEYS:
            self._problem(
                key,
                "key-not-text",
                f"the key {shown(key.text)} is not text" if key.text else "a key is missing here",
                f'put it in quotes: "{key.text}"' if key.text else "write it before the colon",
            )
        elif key.text in parent.entries:
            first = parent.entries[key.text].key
            self._problem(
                key,
                "duplicate-key",
                f"the key {shown(key.text)} stands twice; the first is in line {first.line}",
                "keep one of them",
            )
        else:
            parent.entries[key.text] = Entry(key, value)

    def _anchor(self, name: str | None, node: Node, size: int) -> None:
        if name is not None:
            self._anchors[name] = (node, size)

    def _count(self, event: Any, size: int) -> None:
        self._size += size
        if self._size > MAX_NODES:
            self._stop(
                event,
                "too-many-values",
                f"the spec holds more than {MAX_NODES:,} values, aliases counted as often as used",
                "move data into a file that the entrypoint reads",
            )

    def _too_deep(self, event: Any) -> None:
        self._stop(
            event,
            "too-deep",
            f"more than {MAX_DEPTH} levels of nesting",
            "a spec needs five; is this the right file?",
        )

    def _refuse_tag(self, event: Any, implicit: bool) -> None:
        if not implicit or event.tag is not None:
            self._stop(
                event,
                "tag",
                f"YAML tags are not allowed here: {_tag(event)}",
                "remove the tag; text that begins with ! needs quotes",
            )

    def _problem(self, node: Node, code: str, message: str, suggestion: str | None = None) -> None:
        self.problems.append(
            self.source.diagnostic(node.line, node.column, code, message, suggestion)
        )

    def _stop(self, event: Any, code: str, message: str, suggestion: str) -> None:
        self.problems.append(self.source.diagnostic(*_place(event), code, message, suggestion))
        raise _Stop


def _tag(event: Any) -> str:
    return shown((event.tag or "!").replace("tag:yaml.org,2002:", "!!"))


# `on` is a key of the spec (restart.on); as keys these words are taken as they stand.
_KEY_VALUE = "write it as `key: value`"
_WORD_KEYS = frozenset({"yes", "no", "on", "off"})


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1
