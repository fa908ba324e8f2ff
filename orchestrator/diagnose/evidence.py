"""Where it stands: lines of logs that show what the verdict says."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from orchestrator.agent.exit_record import unmargined, without_ignored
from orchestrator.diagnose.aftermath import LAST_WORDS, may_explain
from orchestrator.diagnose.match import Match
from orchestrator.diagnose.root import Case, Root
from orchestrator.diagnose.stacks import main_stack, own_frame
from orchestrator.diagnose.tail import Tail
from orchestrator.diagnose.verdict import Evidence, First, Others
from orchestrator.diagnose.witness import TOLD, Witness
from orchestrator.logs.line import stamp_of

_FRAME = re.compile(r'^ +File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in .*)?$')
_MESSAGE = 300
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)
# What faulthandler prints below `Fatal Python error: ...`.
_DUMPED = re.compile(r"\s|(?:Current thread|Thread) 0x|Extension modules:")
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python3\.\d+/|^<")


def evidence_of(case: Case, root: Root, speaker: Witness) -> tuple[Evidence, ...]:
    """What the speaker said, where in the person's code, and where the root itself stood."""
    rows = (_stack(case, speaker) if _crashed(speaker) else []) or _said(case, speaker)
    rows += _own_code(speaker)
    if root.first is not speaker:
        rows += _stack(case, root.first) or _said(case, root.first)
    return tuple(rows)


def line_of(case: Case, tail: Tail, match: Match) -> Evidence:
    """The line that a rule found in the log of a launcher or scheduler."""
    path = str(tail.path.relative_to(case.layout.root))
    return Evidence(path, tail.number(match.line or 0), match.text)


def others_of(
    found: Sequence[Witness], root: Root, unread: Mapping[int, int]
) -> tuple[Others, ...]:
    """The other failed ranks by what became of them, the largest group first; of `unread` ones
    only the codes are known."""
    groups: dict[str, list[int]] = {}
    for one in found:
        if one.rank != root.first.rank:
            groups.setdefault(_became(one, root), []).append(one.rank)
    for rank, code in unread.items():
        if rank != root.first.rank:
            groups.setdefault("told to end" if code in TOLD else "not looked at", []).append(rank)
    rows = [Others(what, tuple(sorted(ranks))) for what, ranks in groups.items()]
    return tuple(sorted(rows, key=lambda row: (-len(row.ranks), row.what)))


def first_of(witness: Witness) -> First:
    """The rank that began it."""
    record = witness.record
    left = without_ignored(record.last_lines if record else ())
    lines = [line for line in left if line.strip()]
    while lines and witness.signal in _CRASHES and _DUMPED.match(lines[-1]):
        lines.pop()
    message = record.exception_message if record else ""
    kind = record.exception_type if record and witness.survived is None else ""
    said = (
        f"{kind}: {message}".removesuffix(": ") if kind else witness.reported or (lines or [""])[-1]
    )
    if witness.led_to:
        kind, said = witness.led_to.partition(":")[0], witness.led_to
    return First(
        witness.rank,
        witness.node,
        witness.host,
        record.device if record else "",
        witness.code if witness.code is not None and witness.code >= 0 else None,
        witness.signal,
        kind,
        _short(said),
        record.ended if record else None,
    )


def place_of(node: int | None, host: str) -> str:
    """What follows `rank 3` in a verdict: ` on node 1 (gn07)`, as far as it is known."""
    where = f" on node {node}" if node is not None else ""
    return f"{where} ({host})" if host else where


def unexplained(witness: Witness) -> str:
    """Of a rank that left without a word on why: a clause that follows `rank 1 exited with 3`.
    Empty where its last line may be that word."""
    outlived = witness.survived
    if outlived is not None:
        many = {0: "", 1: "1 line"}.get(outlived.lines, f"{outlived.lines} lines")
        before = f"{many or f'{outlived.seconds:.0f} s'} earlier"
        before = f"more than {before}" if outlived.index is None else before
        return f"and printed nothing that explains it; {before} it logged {_short(outlived.text)}"
    tail = witness.tail
    spoken = [i for i, line in enumerate(tail.lines) if line.strip()] if tail else []
    if tail is None or not spoken or witness.exception or witness.signal is not None:
        return ""
    said, when = _short(tail.lines[spoken[-1]]), tail.times[spoken[-1]]
    if not when or when >= stamp_of(witness.ended - LAST_WORDS):
        told = f"and printed nothing that explains it; its last line is: {said}"
        on_stdout = tail.streams[spoken[-1]] == "stdout"
        return "" if may_explain(tail.lines[spoken[-1]], on_stdout=on_stdout) else told
    return f"and printed nothing in its last {LAST_WORDS:.0f} s; the line before that is: {said}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE else f"{line[: _MESSAGE - 1]}…"


def _became(witness: Witness, root: Root) -> str:
    if witness.told_to_end:
        return "told to end"
    if witness.match is not None and witness.match.rule.echo:
        return witness.match.rule.id
    same = root.first.exception and witness.exception == root.first.exception
    return "the same" if same else "failed too"


def _crashed(witness: Witness) -> bool:
    """By a signal at which faulthandler prints where it was, and without a word of its own."""
    silent = witness.match is None or witness.match.line is None
    return witness.signal in _CRASHES and silent and not witness.exception


def _said(case: Case, witness: Witness) -> list[Evidence]:
    tail = witness.tail
    index = _index(witness, tail) if tail else None
    if tail is None or index is None:
        return []
    path = str(tail.path.relative_to(case.layout.root))
    rows = [Evidence(path, tail.number(index), tail.lines[index], witness.rank)]
    outlived = witness.survived.index if witness.survived is not None else None
    if outlived is not None and outlived != index:
        line = tail.lines[outlived]
        rows.append(Evidence(path, tail.number(outlived), line, witness.rank))
    return rows


def _index(witness: Witness, tail: Tail) -> int | None:
    if witness.match is not None and witness.match.line is not None:
        return witness.match.line
    first = witness.exception.split("\n", 1)[0]
    with_text = [i for i, line in enumerate(tail.lines) if line.strip()]
    named = [i for i in with_text if first and tail.lines[i].startswith(first)]
    last = tail.last_exception() if first and not named else None
    if last is not None and first.startswith(unmargined(tail.lines[last])):
        return last  # a group, whose first exception the record names as well
    return (named or with_text or [None])[-1]  # type: ignore[list-item]


def _own_code(witness: Witness) -> list[Evidence]:
    """The innermost line of the person's own code in the traceback that ended the rank."""
    if not witness.exception or witness.tail is None:
        return []
    frames = list(_frames(witness.tail))
    if not frames:
        return []
    found, code = frames[-1]
    return [Evidence(found["file"], int(found["line"]), code.strip(), witness.rank)]


def _frames(tail: Tail) -> Iterator[tuple[re.Match[str], str]]:
    """With the line of code below each, where the traceback has it: the script may be gone."""
    lines = [unmargined(line) for line in tail.traceback()]
    for line, below in pairwise([*lines, ""]):
        found = _FRAME.match(line)
        if found and not _LIBRARY.search(found["file"]):
            yield found, below if _indent(below) > _indent(line) else ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _stack(case: Case, witness: Witness) -> list[Evidence]:
    """Where it was when it was ended, if it left its stack."""
    frame = own_frame(main_stack(witness.tail))
    if frame is None or witness.tail is None:
        return []
    path = str(witness.tail.path.relative_to(case.layout.root))
    text = f"{frame.file}:{frame.line} in {frame.name}"
    return [Evidence(path, witness.tail.number(frame.index), text, witness.rank)]
