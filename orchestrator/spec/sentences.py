"""What is wrong with one value, in a person's words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orchestrator.spec.base import Refused
from orchestrator.spec.complaint import EXPECTED, SECTION, Complaint
from orchestrator.spec.compose import Mapping, Node, Scalar, Sequence
from orchestrator.spec.fields import Kind, spec_fields
from orchestrator.spec.locate import Place
from orchestrator.spec.scalars import Trap, resolve
from orchestrator.spec.words import closest, listed, shown

_COMMAND_LINES = (("entrypoint", "command"), ("entrypoint", "args"), ("launcher", "args"))
_PLAIN_WORD = re.compile(r"[A-Za-z/-][A-Za-z0-9_./=-]*")
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_WRITE = {
    ("resources", "time_limit"): 'put it in quotes, with a unit: "90m", "12h", "12:30:00"',
    ("rendezvous", "timeout"): 'put it in quotes, with a unit: "600s", "10m"',
    ("restart", "backoff"): 'put it in quotes, with a unit: "30s", "2m"',
    ("resources", "memory"): 'put it in quotes, with a unit: "64GB"',
    ("logging", "rotate"): 'put it in quotes, with a unit: "1GB"',
    ("logging", "max"): 'put it in quotes, with a unit: "10GB"',
    ("launcher",): "write `launcher: torchrun`, or keys below it: name, args",
    ("strategy",): "write `strategy: ddp`, or keys below it: name, stage, sharding, ...",
}


# Where a section knows better what somebody wanted than the type of its values does.
_WAY_OUT_OF = {
    "setup": "write each shell line as an item of its own, without control characters",
    "secrets": "write the names alone; values are taken from your environment at submit",
}


Sentence = tuple[str, str, str | None]
"""Code, message and way out."""
Rule = Callable[[Complaint], Sentence | None]


def sentence(complaint: Complaint) -> Sentence:
    for rule in _RULES:
        found = rule(complaint)
        if found is not None:
            return found
    return "bad-value", f"{complaint.place.dotted}: {complaint.first['msg']}", None


def _trap(complaint: Complaint) -> Sentence | None:
    node = complaint.place.node
    if not isinstance(node, Scalar) or not isinstance(trap := node.value, Trap):
        return None
    return (
        "ambiguous-value",
        f"{complaint.place.dotted}: {shown(node.text)[1:-1]} without quotes {trap.meaning}",
        _for_option(complaint.place, _out_of_trap(complaint, trap)),
    )


def _out_of_trap(complaint: Complaint, trap: Trap) -> str:
    wanted = complaint.expected
    quoted = f'put it in quotes: "{trap.text}"'
    if complaint.choices:
        return f"write {listed([*complaint.choices, *wanted])}"
    if "text" in wanted:
        return f"{quoted}, or write {trap.instead}" if trap.instead and len(wanted) > 1 else quoted
    is_boolean = trap.instead in ("true", "false")
    if trap.instead and is_boolean == ("true or false" in wanted):
        return f"write {trap.instead}"
    return f"write {listed(wanted)}" if wanted else quoted


def _for_option(place: Place, help_: str) -> str:
    """Quotes on the command line must survive the shell."""
    source = place.node.source
    if source.prefix is None or "put it in quotes" not in help_:
        return help_
    text = place.node.text if isinstance(place.node, Scalar) else "..."
    return f"""put it in quotes that the shell keeps: '{source.prefix}"{text}"'"""


def _refused(complaint: Complaint) -> Sentence | None:
    error = complaint.first
    if error["type"] not in ("value_error", "assertion_error"):
        return None
    cause = error["ctx"]["error"]
    if isinstance(cause, Refused):
        section = str(complaint.place.path[0]) if complaint.place.path else ""
        way_out = _WAY_OUT_OF.get(section, cause.way_out)
        return "bad-value", f"{complaint.place.dotted}: {cause.problem}", way_out
    return "bad-value", f"{complaint.place.dotted}: {cause}", None


def _bound(complaint: Complaint) -> Sentence | None:
    error = complaint.first
    if error["type"] not in _BOUNDS:
        return None
    key, words = _BOUNDS[error["type"]]
    return (
        "out-of-range",
        f"{complaint.place.dotted} must be {words} {error['ctx'][key]:.15g}, "
        f"not {_bare(complaint.place.node)}",
        None,
    )


def _length(complaint: Complaint) -> Sentence | None:
    context = complaint.first.get("ctx", {})
    if complaint.first["type"] not in ("too_short", "too_long"):
        return None
    wanted = context.get("min_length", context.get("max_length"))
    return (
        "out-of-range",
        f"{complaint.place.dotted} must have {wanted} items, not {context['actual_length']}",
        None,
    )


def _choice(complaint: Complaint) -> Sentence | None:
    error, node = complaint.first, complaint.place.node
    choices = complaint.choices
    if error["type"] == "union_tag_invalid":
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected_tags"])
    if complaint.place.path == ("version",):
        return _version(node)
    if not choices or (isinstance(node, Scalar) and node.value is None and node.plain):
        return None
    wanted = [*choices, *complaint.expected]
    help_ = f"write {listed(wanted)}"
    if isinstance(node, Scalar):
        if isinstance(number := resolve(node.text), int) and _takes(wanted, number):
            return _quoted(complaint, listed(wanted))
        if match := closest(node.text, choices):
            help_ = f"did you mean {match}?"
    return (
        "bad-value",
        f"{complaint.place.dotted} must be {listed(wanted)}, not {_described(node)}",
        help_ if help_ != f"write {listed(wanted)}" else None,
    )


def _version(node: Node) -> Sentence:
    return (
        "bad-value",
        f"version must be 1, not {_described(node)}",
        "this ptx reads version 1 of the format; write `version: 1`, or leave it out",
    )


def _takes(wanted: list[str], number: int) -> bool:
    return str(number) in wanted or "a whole number" in wanted


def _quoted(complaint: Complaint, wanted: str) -> Sentence | None:
    node = complaint.place.node
    assert isinstance(node, Scalar)  # noqa: S101 - only scalars can be quoted
    return (
        "wrong-type",
        f"{complaint.place.dotted} must be {wanted}, not the text {shown(node.text)}",
        f"remove the quotes: {node.text}",
    )


def _wrong_type(complaint: Complaint) -> Sentence | None:
    if not complaint.expected and not complaint.choices:
        return None
    place, node = complaint.place, complaint.place.node
    wanted = listed([*complaint.choices, *dict.fromkeys(complaint.expected)])
    if isinstance(node, Scalar) and not node.plain and _fits(complaint.expected, node.text):
        return _quoted(complaint, wanted)
    return (
        "wrong-type",
        f"{place.dotted} must be {wanted}, not {_described(node)}",
        _for_option(place, help_) if (help_ := _way_out(complaint)) else None,
    )


def _fits(expected: list[str], text: str) -> bool:
    value = resolve(text)
    if isinstance(value, bool):
        return "true or false" in expected
    if isinstance(value, int):
        return "a whole number" in expected or "a number" in expected
    return isinstance(value, float) and "a number" in expected


def _way_out(complaint: Complaint) -> str | None:
    place, node, expected = complaint.place, complaint.place.node, complaint.expected
    path = tuple(str(part) for part in place.path)
    if path in _WRITE:
        return _WRITE[path]
    if isinstance(node, Scalar) and node.plain and node.value is None:
        below = "its keys" if spec_fields().get(path) is Kind.SECTION else "a value"
        return f"write {below}" if path == ("name",) else f"write {below}, or remove the line"
    if isinstance(node, Scalar):
        if "text" in expected:
            return f'put it in quotes: "{node.text}"'
        if "a list" in expected:
            return f"write {_as_list(path, node.text)}, or one item a line with a dash before it"
        if expected == ["true or false"] and node.value in (0, 1):
            return f"write {'true' if node.value else 'false'}"
        if not {"a mapping", SECTION}.isdisjoint(expected):
            return "write its keys on the lines below, indented"
        if "a whole number" in expected and isinstance(node.value, float):
            return "write it without a decimal point"
    if isinstance(node, Mapping) and path[:2] == ("entrypoint", "args"):
        return "a command line has no nested keys; write the arguments side by side"
    if isinstance(node, Mapping) and "text" in expected:
        return "text that holds a colon and a space needs quotes"
    if isinstance(node, Sequence) and expected == ["text"] and len(node.items) == 1:
        return "remove the brackets or the dash"
    if isinstance(node, Sequence) and not {"a mapping", SECTION}.isdisjoint(expected):
        return "write `key: value` lines without dashes"
    return None


def _bare(node: Node) -> str:
    return node.text if isinstance(node, Scalar) else _described(node)


def _as_list(path: tuple[str, ...], text: str) -> str:
    """`python train.py` as the list that was meant, with what is no plain word in quotes."""
    words = text.split() if path in _COMMAND_LINES else [text]
    return f"[{', '.join(word if _PLAIN_WORD.fullmatch(word) else shown(word) for word in words)}]"


def _described(node: Node) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    assert isinstance(node, Scalar)  # noqa: S101 - the only kinds there are
    value = node.value
    if value is None:
        return "empty" if not node.text else node.text
    if isinstance(value, bool):
        return node.text
    if isinstance(value, int | float):
        return f"the number {node.text}"
    return shown(node.text)


def plain_sentence(name: str, error: Any) -> str:
    """One of pydantic's errors about a value that is not in the spec's own models."""
    kind, context = error["type"], error.get("ctx", {})
    given = shown(str(error["input"]))
    if kind in EXPECTED:
        return f"{name} must be {EXPECTED[kind]}, not {given}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{name} must be {words} {context[key]}, not {given}"
    if kind in ("literal_error", "enum"):
        return f"{name} must be {context['expected']}, not {given}"
    if kind in ("value_error", "assertion_error"):
        return f"{name}: {context['error']}"
    return f"{name}: {error['msg']}, not {given}"


# The first that has something to say is heard.
_RULES: tuple[Rule, ...] = (_trap, _refused, _bound, _length, _choice, _wrong_type)
