"""pydantic's errors, each at its place in the text and in plain words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.spec import suggest
from orchestrator.spec.complaint import Complaint
from orchestrator.spec.compose import Mapping, Node, Sequence
from orchestrator.spec.diagnostics import Diagnostic
from orchestrator.spec.fields import spec_fields
from orchestrator.spec.locate import Location, Place, locate
from orchestrator.spec.sentences import sentence
from orchestrator.spec.words import closest, shown

# difflib takes milliseconds a key; nobody reads on after this many errors.
MAX_SHOWN = 100

_MISSING = {
    ("name",): "add a line such as `name: my-run`",
    ("entrypoint",): "add `entrypoint: {script: train.py}`, the path of what is run",
    ("training", "local_sgd", "interval"): "add `interval: 8`, the steps between two averages",
}


def explain(root: Node, errors: Iterable[Any]) -> list[Diagnostic]:
    """One diagnostic a place, at most MAX_SHOWN."""
    complaints: dict[tuple[Location, str], Complaint] = {}
    for error in errors:
        place, what = _place(root, error)
        if _is_other_member(place, error):
            continue
        complaint = complaints.setdefault((place.path, what), Complaint(place, error))
        complaint.add(error)
    _forgive_missing(complaints)
    chosen = sorted(complaints.values(), key=lambda one: _order(one.place.node))[:MAX_SHOWN]
    return [_diagnostic(complaint) for complaint in chosen]


def _forgive_missing(complaints: dict[tuple[Location, str], Complaint]) -> None:
    """`entrypont:` is one mistake, not an unknown key and a missing one."""
    unknown = [
        one.place.path for one in complaints.values() if one.first["type"] == "extra_forbidden"
    ]
    for path, what in list(complaints):
        section, _, missing = what.partition("missing ")
        if missing and not section:
            beside = [str(other[-1]) for other in unknown if other[:-1] == path]
            if any(closest(key, [missing]) for key in beside[:MAX_SHOWN]):
                del complaints[path, what]


def _order(node: Node) -> tuple[bool, int, int]:
    return node.source.prefix is not None, node.line, node.column


def _place(root: Node, error: Any) -> tuple[Place, str]:
    """Where it is, and a word that keeps apart what can be wrong at one place."""
    location = error["loc"]
    if error["type"] == "missing":
        return locate(root, location[:-1]), f"missing {location[-1]}"
    if error["type"] == "union_tag_invalid":
        return locate(root, (*location, "name")), "value"
    if location and location[-1] == "[key]":
        return locate(root, location[:-1]), "key"
    return locate(root, location), "value"


def _is_other_member(place: Place, error: Any) -> bool:
    """`args` may be a mapping or a list: do not say of a mapping that it is no list."""
    kind = error["type"]
    if isinstance(place.node, Mapping):
        return kind in ("list_type", "literal_error") and _is_open(place)
    if isinstance(place.node, Sequence):
        return kind in ("dict_type", "literal_error") and _is_open(place)
    return False


def _is_open(place: Place) -> bool:
    known = tuple(str(part) for part in place.path)
    return known in _UNIONS


# Paths that take both a mapping and a list, or a list and a word.
_UNIONS = frozenset({("entrypoint", "args"), ("training", "lora", "target_modules")})


def _diagnostic(complaint: Complaint) -> Diagnostic:
    error, place = complaint.first, complaint.place
    kind = error["type"]
    if kind == "missing":
        return _missing(place, str(error["loc"][-1]))
    if kind == "extra_forbidden":
        return _unknown_key(place)
    if kind == "union_tag_not_found":
        return place.diagnostic(
            "missing-key",
            f"{place.dotted} does not say which strategy",
            "add `name: ddp`, `name: fsdp` or `name: zero`",
            at_key=True,
        )
    at_key = bool(error["loc"]) and error["loc"][-1] == "[key]"
    code, message, help_ = sentence(complaint)
    return place.diagnostic(code, message, help_, at_key=at_key)


def _missing(place: Place, key: str) -> Diagnostic:
    path = tuple(str(part) for part in place.path)
    where = f" in {place.dotted}" if place.path else ""
    help_ = _MISSING.get((*path, key), f"add a line `{key}: ...`")
    return place.diagnostic(
        "missing-key", f"the key {shown(key)} is missing{where}", help_, at_key=True
    )


def _unknown_key(place: Place) -> Diagnostic:
    *section, key = (str(part) for part in place.path)
    where = f"in {'.'.join(section)}" if section else "at the top of a spec"
    if section == ["strategy"] and ("strategy", key) in spec_fields():
        message, help_ = "this strategy has no key " + shown(key), _OF_STRATEGY[key]
    else:
        message = f"there is no key {shown(key)} {where}"
        help_ = suggest.for_key(tuple(section), key)
    return place.diagnostic("unknown-key", message, help_, at_key=True)


_OF_STRATEGY = {
    "stage": "stage belongs to `name: zero`",
    "sharding": "sharding belongs to `name: fsdp`",
    "offload": "offload belongs to `name: fsdp` (true or false) and `name: zero`",
}
