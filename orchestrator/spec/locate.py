"""From a path in the spec to its place in the text."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Literal

from orchestrator.spec.compose import Mapping, Node, Scalar, Sequence
from orchestrator.spec.diagnostics import Diagnostic
from orchestrator.spec.fields import Kind, spec_fields

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    path: Location
    """The part of the location that is there in the text."""
    node: Node
    key: Scalar | None
    """The key whose value `node` is; None for the root and for list items."""

    @property
    def dotted(self) -> str:
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text or "the spec"

    def diagnostic(
        self,
        code: str,
        message: str,
        suggestion: str | None = None,
        *,
        at_key: bool = False,
        severity: Literal["error", "warning"] = "error",
    ) -> Diagnostic:
        node = self.key if at_key and self.key is not None else self.node
        return node.source.diagnostic(
            node.line, node.column, code, message, suggestion, severity=severity
        )


def locate(root: Node, location: Seq[str | int]) -> Place:
    """Follow `location` as far as the text goes.

    pydantic puts the names of union members between the keys; what is no key here is one of
    those and is passed over. Below a leaf of the spec nothing is a key, whatever it looks like.
    """
    node, key, path, kind = root, None, (), Kind.SECTION
    place = Place(path, node, key)
    for part in location:
        if isinstance(part, int):
            if not isinstance(node, Sequence) or part >= len(node.items):
                continue
            node, key = node.items[part], None
        elif isinstance(node, Mapping) and kind is not Kind.LEAF and part in node.entries:
            entry = node.entries[part]
            known = tuple(str(step) for step in (*place.path, part))
            kind = Kind.LEAF if kind is Kind.OPEN else spec_fields().get(known, Kind.LEAF)
            node, key = entry.value, entry.key
        else:
            continue
        place = Place((*place.path, part), node, key)
    return place
