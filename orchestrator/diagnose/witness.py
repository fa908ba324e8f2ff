"""What each failed rank left: its exit record, and, where asked, the end of its log."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.agent.exit_record import without_ignored
from orchestrator.diagnose.aftermath import LAST_WORDS, Survived, survived
from orchestrator.diagnose.match import Ending, Match, explain
from orchestrator.diagnose.memory import asked_for, nearly_full
from orchestrator.diagnose.rules import Rule
from orchestrator.diagnose.tail import LONGEST, Tail, read_rank_tail, unprefixed
from orchestrator.logs.line import stamp_of
from orchestrator.logs.screen import plain
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import ExitRecord, read_exit
from orchestrator.runs.state import NodeState

MOST_RECORDS = 2048
"""Exit records that are read: on a shared filesystem each costs a round trip."""
_READERS = 16
"""Records that are read at the same time."""
TOLD = (-signal.SIGTERM, 128 + signal.SIGTERM)
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_LATE_KILL = 1.5
"""Seconds after another rank's failure at which a SIGKILL is the launcher's or the agent's."""
_SAID_ON_EXIT = 20
_THREAD = re.compile(r"Exception in thread ([^\n]+):$")
_GROUP = re.compile(r"(\(\d+ sub-exceptions?\)): ")


@dataclass(frozen=True)
class Witness:
    """One rank that failed, or that others wait for (then it may have left no record)."""

    rank: int
    node: int | None
    """None where nobody knows where it ran."""
    host: str
    code: int | None
    """Exit code, or minus the signal's number; None where no record tells."""
    ended: float
    """Epoch seconds by its node's clock."""
    record: ExitRecord | None = None
    node_reason: str = ""
    tail: Tail | None = None
    """None until its log was looked at."""
    led_to: str = ""
    """The exception that came first, where the last one only followed from it."""
    match: Match | None = None
    memory_full: bool = False
    """The ranks of its node held about all the host memory that they may use."""
    reported: str = ""
    """What its agent said of its end."""
    late: bool = False
    """Others of its node had failed well before."""
    survived: Survived | None = None
    """The exception in its record, where its log shows that it went on after it."""
    ending: bool = False
    """Its exception had ended it when it was told to: the signal says nothing."""

    @property
    def signal(self) -> int | None:
        return -self.code if self.code is not None and self.code < 0 else None

    @property
    def exception(self) -> str:
        record = self.record
        if self.led_to:
            return self.led_to
        if self.survived is not None:
            return ""
        if record is None:
            return plain(self.reported)
        if not record.exception_type:
            return ""
        said = f"{record.exception_type}: {record.exception_message}".removesuffix(": ")
        lines = said.split("\n")[:_SAID_ON_EXIT]  # of a damaged record it may be anything
        return "\n".join(plain(line[:LONGEST]) for line in lines)

    @property
    def thread(self) -> str:
        """Whose exception its last traceback tells, where that is not the main thread's."""
        start = self.tail.chain() if self.tail is not None else None
        above = self.tail.lines[start - 1] if self.tail is not None and start else ""
        found = _THREAD.match(above)
        return found[1] if found else ""

    @property
    def told_to_end(self) -> bool:
        """By its launcher, its agent or the scheduler; not by what it did itself."""
        return not self.ending and (self.code in TOLD or (self.code in _KILLED and self.late))

    @property
    def order(self) -> tuple[int, float, int]:
        """The first of all is the root: those that failed by themselves, then what was said
        because of others, then those that were told to end."""
        if self.told_to_end:
            return 2, self.ended, self.rank
        echo = self.match is not None and self.match.rule.echo
        return int(echo), self.ended, self.rank

    @property
    def by_itself(self) -> bool:
        return self.order[0] == 0


def witnesses(
    layout: RunLayout, attempt: int, nodes: Sequence[NodeState], rules: Iterable[Rule]
) -> list[Witness]:
    """Every failed rank of an attempt, up to MOST_RECORDS of them, the likeliest root first."""
    rules = tuple(rules)
    rows = _failed(layout, attempt, nodes)
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(lambda row: _witness(layout, attempt, *row), rows))
    firsts: dict[int | None, float] = {}
    for one in found:
        if one.code not in (*TOLD, *_KILLED):
            firsts[one.node] = min(one.ended, firsts.get(one.node, one.ended))
    full = _full_nodes(layout, found)
    late = [
        replace(
            one,
            late=one.ended > firsts.get(one.node, one.ended) + _LATE_KILL,
            memory_full=one.node in full,
        )
        for one in found
    ]
    return sorted((judged(one, rules) for one in late), key=lambda one: one.order)


def not_read(nodes: Iterable[NodeState], found: Iterable[Witness]) -> dict[int, int]:
    """The failed ranks whose records were too many to be looked at, with their codes."""
    read = {one.rank for one in found}
    codes = {rank: code for node in nodes for rank, code in node.ranks.items()}
    return {rank: code for rank, code in codes.items() if code and rank not in read}


def _full_nodes(layout: RunLayout, found: Iterable[Witness]) -> set[int | None]:
    """Asked only for nodes on which a rank was killed."""
    found = list(found)
    killed = {one.node: one.host for one in found if one.code in _KILLED}
    held = dict.fromkeys(killed, 0)
    for one in found:
        if one.node in held and one.record is not None:
            held[one.node] += one.record.max_rss_bytes
    asked = asked_for(layout) if killed else None
    return {node for node, host in killed.items() if nearly_full(asked, host, held[node])}


def judged(witness: Witness, rules: Iterable[Rule]) -> Witness:
    """With the rule that explains it, by its log where that was read, else by its record."""
    return replace(witness, match=explain(rules, _ending(witness)))


def with_log(witness: Witness, layout: RunLayout, attempt: int, rules: Iterable[Rule]) -> Witness:
    """After a look at the end of its log."""
    if witness.node is None:
        return witness
    tail = read_rank_tail(layout.node(attempt, witness.node), witness.rank)
    outlived = None
    if witness.exception and witness.record is not None:
        outlived = survived(tail, witness.exception, witness.code, witness.ended)
    seen = judged(replace(witness, tail=tail, survived=outlived), rules)
    if outlived is not None or seen.match is None or not seen.match.rule.echo:
        return seen
    first = tail.first_exception()
    before = (
        explain(rules, Ending(exit_code=witness.code, exception=first)) if first else seen.match
    )
    return seen if before and before.rule.echo else replace(seen, led_to=first, match=before)


def _ending(witness: Witness) -> Ending:
    record, tail = witness.record, witness.tail
    if tail is not None and tail.lines:
        silent = not witness.exception and witness.signal is None and record is not None
        said = tail.since(stamp_of(witness.ended - LAST_WORDS)) if silent else tail.lines
        if witness.survived is not None:
            past = (witness.survived.index or 0) + 1
            said = ("",) * past + tuple(said[past:])
        chain = tail.chain()
    else:
        lines = without_ignored(record.last_lines if record else ())
        said = tuple(unprefixed(plain(line[:LONGEST])) for line in lines[-_SAID_ON_EXIT:])
        chain = Tail(Path(), said).chain()
    # gloo's threads abort now and then in the exit that an exception has led to (torch 2.13).
    aborted = bool(witness.exception) and witness.signal == signal.SIGABRT
    return Ending(
        signal=None if aborted or witness.ending else witness.signal,
        exit_code=None if witness.ending else witness.code,
        ended=witness.node_reason,
        memory_full=witness.memory_full,
        # Rules ask for a line that begins with a type: that of what is in a group is one.
        exception=_GROUP.sub(r"\1:\n", witness.exception),
        said=said,
        # A traceback that the rank survived says nothing about how it ended.
        chain=chain if witness.exception else None,
    )


def _witness(layout: RunLayout, attempt: int, node: NodeState, rank: int) -> Witness:
    record = read_exit(layout, attempt, node.node, rank)
    failure = node.failure if node.failure and node.failure.rank == rank else None
    code = node.ranks.get(rank, record.code if record else None)
    ended = record.ended if record else failure.t if failure else node.ended or 0.0
    host = record.host if record and record.host else node.host
    said = failure.message if failure else ""
    return Witness(rank, node.node, host, code, ended, record, node.reason, reported=said)


def _failed(
    layout: RunLayout, attempt: int, nodes: Sequence[NodeState]
) -> list[tuple[NodeState, int]]:
    """Those that their agents named first, in the order of time; then the others, node by node in
    that order, those that were told to end last."""
    order = sorted(nodes, key=lambda node: node.failure.t if node.failure else math.inf)
    rows = [(node, node.failure.rank) for node in order if node.failure]
    own = {rank for _, rank in rows}
    told: list[tuple[NodeState, int]] = []
    for node in order:
        codes = node.ranks or _codes_on_disk(layout, attempt, node)
        for rank in sorted(rank for rank, code in codes.items() if code and rank not in own):
            (told if codes[rank] in TOLD else rows).append((node, rank))
    return [*rows, *told][:MOST_RECORDS]


def _codes_on_disk(layout: RunLayout, attempt: int, node: NodeState) -> dict[int, int]:
    """Of a node whose agent died or still runs: what its shims have left."""
    if node.ended is not None:
        return {}
    codes = {}
    for path in sorted(layout.node(attempt, node.node).glob("rank-*.exit.json"))[:MOST_RECORDS]:
        number = path.name.removeprefix("rank-").removesuffix(".exit.json")
        record = read_exit(layout, attempt, node.node, int(number)) if number.isdecimal() else None
        if record is not None:
            codes[record.rank] = record.code
    return codes
