"""What is known of failures: one rule each, read from TOML (`known/*.toml` and a person's own).

    [[rule]]
    id = "no-space"
    class = "failed"                    # the run's class if this is the root
    text = ['OSError: \\[Errno 28\\]']    # regular expressions; one of them must be found
    cause = "no space was left on the disk that it wrote to"
    next = "Free space there, or write elsewhere."
    [[rule.example]]
    text = "OSError: [Errno 28] No space left on device: '/data/out.bin'"

Of several rules that fit, the first one counts; a person's own come before ptx's.
"""

from __future__ import annotations

import re
import signal
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from orchestrator.diagnose.own_files import own_files
from orchestrator.errors import UserError

KNOWN = Path(__file__).resolve().parent / "known"
CLASSES = (
    "failed",
    "out-of-memory",
    "preempted",
    "time-limit",
    "node-failure",
    "cancelled",
    "launch-error",
    "hang",
    "unknown",
)
"""Those of a run that has ended badly, as `ptx status` names them."""
PLACES = ("rank", "launcher", "scheduler")
_LISTS = ("text", "signal", "exit_code", "ended", "place")
_WORDS = ("id", "class", "cause", "next")
_FLAGS = ("echo", "of_another", "anywhere", "vague", "memory_full")


@dataclass(frozen=True)
class Example:
    """A log that the rule must explain, with how its rank ended."""

    text: str = ""
    place: str = "rank"
    signal: int | None = None
    exit_code: int | None = None
    ended: str = ""
    """`reason` of the node's end."""
    memory_full: bool = False


@dataclass(frozen=True)
class Rule:
    """All statuses that are named must hold, and one of the texts must be found."""

    id: str
    state: str
    cause: str
    """A clause that follows `rank 3 on node 1 exited with 1:`. `{name}` stands for a named group
    of the text's regular expression, `[ on {path}]` is left out where that group is empty."""
    next: str
    """What to do now, a sentence."""
    text: tuple[str, ...] = ()
    echo: bool = False
    """What a rank says because of another's failure: a root only where nothing better is found.
    A group named `rank` says whose."""
    of_another: bool = False
    """An echo that speaks of a rank which did not come or has gone."""
    anywhere: bool = False
    """The text counts wherever it stands in the tail of a log, not only at the end."""
    vague: bool = False
    """It says that something failed and not why: what another rule finds anywhere counts more."""
    place: tuple[str, ...] = ("rank",)
    """Whose output: a rank's, the launcher's of a node, the scheduler's log."""
    signal: tuple[int, ...] = ()
    exit_code: tuple[int, ...] = ()
    ended: tuple[str, ...] = ()
    """`reason` of the node's end (docs/architecture.md)."""
    memory_full: bool = False
    """Only where the ranks of its node held about all the host memory that they may use."""
    examples: tuple[Example, ...] = field(default=(), compare=False)

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        return tuple(re.compile(text, re.MULTILINE) for text in self.text)


@cache
def known() -> tuple[Rule, ...]:
    """ptx's own rules, in order."""
    return tuple(rule for path in sorted(KNOWN.glob("*.toml")) for rule in read_rules(path))


def all_rules(more: Iterable[Path] = ()) -> tuple[Rule, ...]:
    """`more`, a person's own and ptx's, in the order they are asked. Raises UserError."""
    own = [rule for path in (*more, *own_files()) for rule in own_rules(path)]
    return (*own, *known())


def own_rules(path: Path) -> list[Rule]:
    """Rules that somebody else wrote; ptx's own are compiled only when they are asked."""
    rules = read_rules(path)
    for rule in rules:
        try:
            _ = rule.patterns
        except re.error as error:
            raise UserError(f"The rules {path}: rule {rule.id}: {error}.", hint=_HINT) from error
    return rules


def read_rules(path: Path) -> list[Rule]:
    """The rules of one file. Raises UserError, naming the file and the rule."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"The rules {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The rules {path} are not TOML: {error}.", hint=_HINT) from error
    rows = data.get("rule")
    if not isinstance(rows, list) or set(data) != {"rule"}:
        raise UserError(f"The rules {path} hold something beside [[rule]] tables.", hint=_HINT)
    try:
        return [_rule(row) for row in rows]
    except ValueError as error:
        raise UserError(f"The rules {path}: {error}.", hint=_HINT) from error


_HINT = "`ptx why --help` shows how a rule is written."


def _rule(row: object) -> Rule:
    if not isinstance(row, dict):
        raise ValueError("a rule is not a table")
    name = row.get("id") or "without id"
    try:
        return _checked(row)
    except ValueError as error:
        raise ValueError(f"rule {name}: {error}") from error


def _checked(row: Mapping[str, Any]) -> Rule:
    unknown = set(row) - {*_WORDS, *_LISTS, *_FLAGS, "example"}
    if unknown:
        raise ValueError(f"{min(unknown)} is not a key of a rule")
    words = {key: _word(row, key) for key in _WORDS}
    lists = {key: _list(row, key) for key in _LISTS}
    if words["class"] not in CLASSES:
        raise ValueError(f"class {words['class']} is none of {', '.join(CLASSES)}")
    if not set(lists["place"]) <= set(PLACES):
        raise ValueError(f"place is none of {', '.join(PLACES)}")
    examples = row.get("example", [])
    rule = Rule(
        id=words["id"],
        state=words["class"],
        cause=words["cause"],
        next=words["next"],
        text=tuple(map(str, lists["text"])),
        echo=bool(row.get("echo", False)),
        of_another=bool(row.get("of_another", False)),
        anywhere=bool(row.get("anywhere", False)),
        vague=bool(row.get("vague", False)),
        memory_full=bool(row.get("memory_full", False)),
        place=tuple(map(str, lists["place"])) or ("rank",),
        signal=tuple(_signal(name) for name in lists["signal"]),
        exit_code=tuple(int(code) for code in lists["exit_code"]),
        ended=tuple(map(str, lists["ended"])),
        examples=tuple(_example(one) for one in examples if isinstance(one, dict)),
    )
    if not (rule.text or rule.signal or rule.exit_code or rule.ended):
        raise ValueError("it names nothing to match: text, signal, exit_code or ended")
    if rule.anywhere and not rule.text:
        raise ValueError("anywhere is about text, and there is none")
    return rule


def _word(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be a text")
    return value.strip()


def _list(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key, [])
    return value if isinstance(value, list) else [value]


def _signal(name: object) -> int:
    try:
        return signal.Signals[str(name)].value
    except KeyError:
        raise ValueError(f"{name} is not the name of a signal") from None


def _example(row: Mapping[str, Any]) -> Example:
    name = row.get("signal")
    code = row.get("exit_code")
    return Example(
        text=str(row.get("text", "")).strip("\n"),
        place=str(row.get("place", "rank")),
        signal=None if name is None else _signal(name),
        exit_code=code if isinstance(code, int) else None,
        ended=str(row.get("ended", "")),
        memory_full=bool(row.get("memory_full", False)),
    )
