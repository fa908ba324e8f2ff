"""The spec with every default filled in, as YAML that loads back to an equal spec.

Written by hand: PyYAML leaves `1e-4` and others without quotes that the loader here would
not read as text, and its layout changes between versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.spec.job import JobSpec
from orchestrator.spec.scalars import resolve

_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
# Booleans to some readers of YAML.
_LETTERS = frozenset("yYnN")
_UNPRINTABLE = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")


def to_yaml(spec: JobSpec) -> bytes:
    """The same bytes for equal specs."""
    return ("\n".join(_mapping(spec.model_dump(), "")) + "\n").encode("utf-8")


def _mapping(data: dict[str, Any], indent: str) -> Iterator[str]:
    for key, value in data.items():
        yield from _item(f"{indent}{_text(key)}:", value, indent + "  ")


def _item(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict) and value:
        yield head
        yield from _mapping(value, indent)
    elif isinstance(value, list) and value:
        yield head
        for item in value:
            yield from _item(f"{indent}-", item, indent + "  ")
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case True:
            return "true"
        case False:
            return "false"
        case str():
            return _text(value)
        case dict():
            return "{}"
        case list():
            return "[]"
        case float():
            # `1e-05` is text to some readers of YAML, `1.0e-05` to none.
            return re.sub(r"^(-?[0-9]+)e", r"\1.0e", repr(value))
    return str(value)


def _text(text: str) -> str:
    """Bare where every reader of YAML takes it for this text, else in double quotes."""
    if _BARE.fullmatch(text) and text not in _LETTERS and resolve(text) == text:
        return text
    return _UNPRINTABLE.sub(
        lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False)
    )
