"""The verdict on ranks that were ended because none got on: for whom did the others wait?"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from orchestrator.diagnose.evidence import first_of, place_of
from orchestrator.diagnose.match import Ending, Match, explain
from orchestrator.diagnose.root import Case
from orchestrator.diagnose.stacks import Place, grouped, place, stopped_ranks
from orchestrator.diagnose.tail import Tail, read_rank_tail
from orchestrator.diagnose.verdict import Evidence, Stand, Verdict
from orchestrator.diagnose.witness import Witness
from orchestrator.runs.words import sentence

MOST_RANKS = 8192
READERS = 16
"""Logs that are read at the same time: on a shared filesystem each is a wait."""
_STACK_BYTES = 32 * 1024


def verdict(case: Case, found: Sequence[Witness]) -> Verdict:
    """`found`: the witnesses that left records; the stacks of all ranks are read."""
    tails = _tails(case)
    places = {rank: where for rank, tail in tails.items() if (where := place(tail))}
    silent = sorted(set(tails) - set(places))
    stopped = stopped_ranks(places) or (silent if _all_wait(places) else [])
    stands = _stands(places, silent, set(stopped))
    match = _explained(case, tails, stopped)
    told = Verdict(
        "failed",
        "hang",
        "",
        case.attempt,
        rule=match.rule.id if match else "",
        cause=sentence(match.cause) if match else "",
        next=match.rule.next if match else "",
        stands=stands,
    )
    if not stopped:
        node = next(node for node in case.nodes if node.reason == "hang")
        said = node.message or (match.cause if match else "")
        words = f"node {node.node} ({node.host}): {said}"
        return replace(told, node=node.node, sentence=sentence(words))
    first = next((one for one in found if one.rank == stopped[0]), None)
    first = first or case.silent(stopped[0], Witness(stopped[0], None, "", None, 0.0))
    named = first_of(first)
    if not named.exception:  # else the last line of its stack, or of what it printed long before
        named = replace(named, message=_stood(first, places))
    why = f": {match.cause}" if match and match.text else ""
    return replace(
        told,
        first=named,
        node=first.node,
        sentence=sentence(f"{_said(first, places, stopped)}{why}"),
        next=told.next if why else _next(first, places) or told.next,
        evidence=_evidence(case, first, tails.get(first.rank), places),
        unsure=tuple(stopped[1:]),
    )


def _explained(case: Case, tails: Mapping[int, Tail], stopped: Sequence[int]) -> Match | None:
    """By a rule about hangs, for what the rank that stopped had printed; where none can be told
    from the others, for what the first of all had."""
    rules = [rule for rule in case.rules if "hang" in rule.ended]
    ranks = [rank for rank in (*stopped, *sorted(tails)) if rank in tails]
    said = tails[ranks[0]].lines if ranks else ()
    return explain(rules, Ending(signal=signal.SIGABRT, ended="hang", said=said))


def _tails(case: Case) -> dict[int, Tail]:
    """The end of each rank's log."""
    homes = [(node.node, rank) for node in case.nodes for rank in sorted(node.ranks)][:MOST_RANKS]

    def read(home: tuple[int, int]) -> Tail:
        node, rank = home
        return read_rank_tail(case.layout.node(case.attempt, node), rank, _STACK_BYTES)

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip((rank for _, rank in homes), pool.map(read, homes), strict=True))


def _all_wait(places: Mapping[int, Place]) -> bool:
    """Then those that left no stack are who they waited for."""
    return bool(places) and all(one.doing != "elsewhere" for one in places.values())


def _stands(
    places: Mapping[int, Place], silent: Sequence[int], stopped: set[int]
) -> tuple[Stand, ...]:
    rows = []
    for ranks in grouped(places):
        one = places[ranks[0]]
        line = int(one.own.line) if one.own.line.isdecimal() else None
        guilty = not stopped.isdisjoint(ranks)
        rows.append(Stand(tuple(ranks), one.call, one.own.file, line, guilty))
    if silent:
        rows.append(Stand(tuple(silent), "", stopped=not stopped.isdisjoint(silent)))
    return tuple(sorted(rows, key=lambda row: (not row.stopped, -len(row.ranks), row.ranks)))


def _said(first: Witness, places: Mapping[int, Place], stopped: Sequence[int]) -> str:
    also = f", or one of {len(stopped) - 1} more," if len(stopped) > 1 else ""
    waiting = len(places) - sum(rank in places for rank in stopped)
    others = "the other waited" if waiting == 1 else f"{waiting} others waited"
    who = f"rank {first.rank}{place_of(first.node, first.host)}{also}"
    return f"{who} {_stood(first, places)} while {others}{_in_call(places, stopped)}"


def _stood(first: Witness, places: Mapping[int, Place]) -> str:
    one = places.get(first.rank)
    if one is None:
        return "stopped and left no stack"
    return f"stopped in {one.call} ({short(one.own.file)}:{one.own.line})"


def _next(first: Witness, places: Mapping[int, Place]) -> str:
    one = places.get(first.rank)
    if one is None:
        return ""
    return f"Look at line {one.own.line} of {one.own.file}: what rank {first.rank} does there."


def _in_call(places: Mapping[int, Place], stopped: Sequence[int]) -> str:
    calls = {one.call for rank, one in places.items() if rank not in stopped}
    return f" in {calls.pop()}" if len(calls) == 1 else ""


def short(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _evidence(
    case: Case, first: Witness, tail: Tail | None, places: Mapping[int, Place]
) -> tuple[Evidence, ...]:
    one = places.get(first.rank)
    if one is None or tail is None:
        return ()
    path = str(tail.path.relative_to(case.layout.root))
    text = f"{one.own.file}:{one.own.line} in {one.own.name}"
    return (Evidence(path, tail.number(one.own.index), text, first.rank),)
