"""Which rank began it: the others' timeouts, closed connections and SIGTERMs are its echoes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.diagnose.match import Ending, explain
from orchestrator.diagnose.raised import MOST_LOGS, first_to_raise, first_to_say, is_echo
from orchestrator.diagnose.recorder import Last, behind, recorded
from orchestrator.diagnose.rules import Rule
from orchestrator.diagnose.stacks import collective_call, place, stopped_ranks
from orchestrator.diagnose.witness import TOLD, Witness, with_log
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.state import NodeState

_NEVER_CAME = "hang"
"""The class of the rules that speak of a rank which did not come."""


@dataclass(frozen=True)
class Case:
    """One attempt, and what is known of it before any log is read."""

    layout: RunLayout
    attempt: int
    nodes: tuple[NodeState, ...]
    world_size: int
    rules: tuple[Rule, ...]

    def with_log(self, witness: Witness) -> Witness:
        return with_log(witness, self.layout, self.attempt, self.rules)

    def with_tail(self, witness: Witness) -> Witness:
        """Its log is to be shown; what explains it is known."""
        return replace(self.with_log(witness), match=witness.match)

    @cached_property
    def recorded(self) -> list[Last]:
        """What flight recorders left; only collectives that timed out leave anything."""
        return recorded([self.layout.node(self.attempt, node.node) for node in self.nodes])

    def left_early(self) -> list[int]:
        """The few that completed while others still needed them; none where most did."""
        codes = {rank: code for node in self.nodes for rank, code in node.ranks.items()}
        done = sorted(rank for rank, code in codes.items() if code == 0)
        return done if 2 * len(done) <= self.world_size else []

    def all_left_word(self) -> bool:
        """Of how they ended; else one that is gone may have begun it."""
        return self.world_size == len({rank for node in self.nodes for rank in node.ranks})

    def silent_ranks(self, known: Mapping[int, Witness]) -> list[int]:
        """They said nothing of their own: they were busy or stuck when they were ended."""
        codes = {rank: code for node in self.nodes for rank, code in node.ranks.items()}
        quiet = {rank for rank in range(self.world_size) if codes.get(rank, TOLD[0]) in TOLD}
        for rank, one in known.items():
            if (one.exception and is_echo(one)) or not one.told_to_end:
                quiet.discard(rank)
            else:
                quiet.add(rank)
        return sorted(quiet)

    def silent(self, rank: int, heard: Witness) -> Witness:
        """One that left no record; where it ran is known if only one node can be meant."""
        homes = [node for node in self.nodes if rank in node.ranks]
        homes = homes or [node for node in self.nodes if not node.ranks]
        home = homes[0] if len(homes) == 1 else None
        code = home.ranks.get(rank) if home else None
        node, host = (home.node, home.host) if home else (None, "")
        return Witness(rank, node, host, code, heard.ended)


@dataclass(frozen=True)
class Root:
    """`first` began it, or is who all others waited for."""

    first: Witness
    heard: Witness | None = None
    """Whose words name the cause, where that is not `first` itself."""
    unsure: tuple[int, ...] = ()
    """More ranks that may as well have been the first."""


def speaks_of_one_gone(heard: Witness) -> bool:
    """And not of one that did not come."""
    rule = heard.match.rule if heard.match else None
    return rule is not None and rule.of_another and rule.state != _NEVER_CAME


def find_root(case: Case, found: Sequence[Witness]) -> Root | None:
    """`found`: the failed ranks, the likeliest first. None where none failed."""
    looked: list[Witness] = []
    waiting = list(found)
    while waiting and len(looked) < MOST_LOGS:
        one = case.with_log(waiting.pop(0))
        looked.append(one)
        if one.order[0] != 1:
            break  # an echo may turn out to be one's own words, and the other way round
    looked = sorted([*looked, *waiting], key=lambda one: one.order)
    if not looked:
        return None
    first = looked[0]
    if first.match is None or first.told_to_end or not first.match.rule.echo:
        return Root(first)
    raised = first_to_raise(looked, first, case.with_log)
    if raised is not None:
        return Root(raised)
    return _waited_for(case, first, looked) if first.match.rule.of_another else Root(first)


def _waited_for(case: Case, heard: Witness, found: Sequence[Witness]) -> Root:
    """All that is heard are echoes: who is it that they speak of?"""
    by_rank = {one.rank: one for one in found}
    named = heard.match.rank if heard.match else None
    if named is not None:
        return Root(by_rank.get(named) or case.silent(named, heard), heard)
    late = _behind(found)
    if late:
        return Root(late[0], late[0], tuple(one.rank for one in late[1:]))
    odd = _in_different_operations(case, found)
    if odd is not None:
        return odd
    slow = behind(case.recorded)
    if slow:
        first = by_rank.get(slow[0]) or case.silent(slow[0], heard)
        return Root(case.with_log(first), heard, tuple(slow[1:]))
    early = case.left_early()
    if early:
        match = explain(case.rules, Ending(exit_code=0, ended="left-early"))
        first = replace(case.silent(early[0], heard), match=match)
        return Root(case.with_tail(first), first, tuple(early[1:]))
    if case.all_left_word() and speaks_of_one_gone(heard):
        raised = first_to_say(found, heard, case.rules, case.with_log)
        if raised is not None:
            return Root(raised)
    places = {one.rank: where for one in found if (where := place(one.tail))}
    suspects = stopped_ranks(places) or case.silent_ranks(by_rank)
    if not suspects:
        return _in_different_calls(case, found) or Root(heard)
    if len(suspects) == case.world_size or len(suspects) > MOST_LOGS:
        return Root(heard)
    first = by_rank.get(suspects[0]) or case.silent(suspects[0], heard)
    return Root(case.with_log(first), heard, tuple(suspects[1:]))


def _in_different_calls(case: Case, found: Sequence[Witness]) -> Root | None:
    """All waited, and not in the same call: the rarest of them is shown first."""
    calls = {one.rank: call for one in found if (call := collective_call(one.tail))}
    return _odd_one_out(case, found, calls)


def _in_different_operations(case: Case, found: Sequence[Witness]) -> Root | None:
    """NCCL's watchdogs name the operation: under one number all should be in the same."""
    operations = {
        one.rank: one.match.groups["op"]
        for one in found
        if one.match is not None and one.match.groups.get("op") and one.match.groups.get("seq")
    }
    return _odd_one_out(case, found, operations)


def _odd_one_out(case: Case, found: Sequence[Witness], calls: Mapping[int, str]) -> Root | None:
    kinds = Counter(calls.values())
    if len(kinds) < 2:
        return None
    rare = min(kinds, key=lambda call: (kinds[call], call))
    odd = [one for one in found if calls.get(one.rank) == rare]
    shown = {call: next(rank for rank in sorted(calls) if calls[rank] == call) for call in kinds}
    how = ", ".join(f"rank {rank} in {call}" for call, rank in sorted(shown.items(), key=str))
    match = explain(case.rules, Ending(ended="different-calls", said=(how,)))
    first = replace(odd[0], match=match and replace(match, line=None))
    return Root(first, None, tuple(one.rank for one in odd[1:]))


def _behind(found: Sequence[Witness]) -> list[Witness]:
    """NCCL's watchdog numbers the collectives: who waits in an earlier one is what all wait for."""
    numbers = {
        one.rank: int(one.match.groups["seq"])
        for one in found
        if one.match is not None and one.match.groups.get("seq", "").isdecimal()
    }
    if len(set(numbers.values())) < 2:
        return []
    least = min(numbers.values())
    return [one for one in found if numbers.get(one.rank) == least]
