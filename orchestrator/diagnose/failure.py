"""Why one attempt failed: the rank, the node or the scheduler that began it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.diagnose import hang
from orchestrator.diagnose.evidence import (
    evidence_of,
    first_of,
    line_of,
    others_of,
    place_of,
    unexplained,
)
from orchestrator.diagnose.match import Ending, Match, explain
from orchestrator.diagnose.recorder import stands
from orchestrator.diagnose.root import Case, Root, find_root, speaks_of_one_gone
from orchestrator.diagnose.rules import Rule
from orchestrator.diagnose.tail import Tail, read_tail
from orchestrator.diagnose.verdict import First, Stand, Verdict
from orchestrator.diagnose.witness import Witness, not_read, witnesses
from orchestrator.runs.observe import Observed
from orchestrator.runs.state import RunState, State
from orchestrator.runs.words import exit_words, is_launch_reason, says_only_how, sentence

_BY_SCHEDULER = (State.OUT_OF_MEMORY, State.TIME_LIMIT, State.PREEMPTED, State.NODE_FAILURE)
_MOST_NODES = 16


def of_attempt(run: Observed, state: RunState, rules: tuple[Rule, ...]) -> Verdict:
    """The verdict on an attempt that came to its nodes and did not complete."""
    assert state.attempt is not None  # noqa: S101 - for the type checker
    case = Case(run.layout, state.attempt, state.nodes, run.record.world_size, rules)
    found = witnesses(run.layout, state.attempt, state.nodes, rules)
    if any(node.reason == "hang" for node in state.nodes):
        return hang.verdict(case, found)
    root = find_root(case, found)
    told = None if _is_hearsay(run, state) else _by_scheduler(state, rules)
    if told is not None and not _says_so_itself(state, root):
        return _scheduled(case, state, told, _victim(state, found, root))
    if root is None or (root.first.told_to_end and root.heard is None):
        return _by_launcher(run, case, state, root)
    if _never_came(state, root):
        return _by_launcher(run, case, state, None)
    return _by_rank(run, case, state, root, found)


def _by_rank(
    run: Observed, case: Case, state: RunState, root: Root, found: Sequence[Witness]
) -> Verdict:
    speaker = root.heard or root.first
    match, elsewhere = speaker.match, None
    if match is None or not match.text or match.rule.vague:
        elsewhere = _elsewhere(case, root.first.node)
    match = elsewhere[1] if elsewhere is not None else _of_its_error(case, match)
    named = match.rule.state if match else _class_of(state)
    if match is None and _is_hearsay(run, state) and unexplained(root.first):
        named = State.FAILED.value
    first = first_of(root.first)
    unread = not_read(state.nodes, found)
    cause = _limited(match, len(found), len(unread)) if match else ""
    evidence = evidence_of(case, root, speaker)
    if elsewhere is not None:
        evidence = (line_of(case, *elsewhere), *evidence)
    return Verdict(
        "failed",
        named,
        sentence(_told(root, cause, first)),
        case.attempt,
        first,
        root.first.node,
        match.rule.id if match else "",
        sentence(cause) if cause else "",
        match.rule.next if match else "",
        evidence,
        others_of(found, root, unread),
        unsure=root.unsure,
        stands=_stands(case, root, speaker),
    )


def _never_came(state: RunState, root: Root) -> bool:
    """A node none of whose ranks was started, for which others waited in vain: all that is heard
    are echoes, which name nobody, from after its end."""
    heard = root.heard or root.first
    if heard.match is None or not heard.match.rule.echo or heard.match.rank is not None:
        return False
    missed = [node for node in state.nodes if is_launch_reason(node.reason) and not node.ranks]
    return any(node.ended is not None and node.ended <= heard.ended for node in missed)


def _of_its_error(case: Case, match: Match | None) -> Match | None:
    """Of what all raised because of one rank's error: that error's own rule, where it has one."""
    error = match.groups.get("error", "") if match else ""
    own = explain(case.rules, Ending(exit_code=1, exception=error)) if error else None
    return own or match


def _limited(match: Match, read: int, unread: int) -> str:
    """The cause, with how few ranks were asked where one of the others may know better."""
    if not unread or not match.rule.of_another:
        return match.cause
    known = match.cause.removesuffix(", and no rank says why")
    return f"{known}; of {read + unread:,} failed ranks {read:,} were looked at"


def _told(root: Root, cause: str, first: First) -> str:
    """`rank 3 on node 1 exited with 1: CUDA ...`; a rank that said nothing of its end is not given
    words that it said long before."""
    if root.first.ending:
        said = (f"{first.exception}: {cause}" if cause else first.message).rstrip(".")
        if root.first.thread:
            whose = f"{_who(root.first)} went on without its thread {root.first.thread}"
            return f"{whose}, which had raised {said}, until it was told to end"
        return f"{_who(root.first)} raised {said}, and was still ending when it was told to end"
    quiet = "" if cause or root.heard not in (None, root.first) else unexplained(root.first)
    if quiet:
        return f"{_blame(root)} {quiet}"
    only_how = says_only_how(first.message, first.exit_code, first.signal)
    why = cause or ("" if only_how else first.message)
    said = ": ".join(word for word in (_blame(root), why) if word)
    return f"{said}{_of_the_suspect(root)}"


def _of_the_suspect(root: Root) -> str:
    """What is known of the one rank that may have broken a connection, to whom no word points."""
    first, heard = root.first, root.heard
    if heard is None or heard is first or root.unsure or not speaks_of_one_gone(heard):
        return ""
    if first.code is None:
        return "; it left no exit record"
    if heard.match is not None and heard.match.rank is not None:
        return ""
    later = first.node == heard.node and first.ended > heard.ended
    return f"; it {exit_words(first.code)} after that" if later else ""


def _stands(case: Case, root: Root, speaker: Witness) -> tuple[Stand, ...]:
    """Of ranks that waited for each other in vain: their last collectives, where recorded."""
    if speaker.match is None or not speaker.match.rule.of_another:
        return ()
    return stands(case.recorded, (root.first.rank, *root.unsure))


def _class_of(state: RunState) -> str:
    return state.state.value if state.state.ended else State.FAILED.value


def _blame(root: Root) -> str:
    if root.heard is not None and root.heard is not root.first:
        also = f", or one of {len(root.unsure)} more" if root.unsure else ""
        return f"{_who(root.first)}{also}"
    return f"{_who(root.first)} {exit_words(root.first.code)}"


def _who(witness: Witness) -> str:
    return f"rank {witness.rank}{place_of(witness.node, witness.host)}"


def _by_scheduler(state: RunState, rules: Iterable[Rule]) -> Match | None:
    """Ends that only the scheduler knows: what the ranks say then is what it did to them."""
    if state.state not in _BY_SCHEDULER:
        return None
    return explain(rules, Ending(place="scheduler", ended=state.state.value))


def _says_so_itself(state: RunState, root: Root | None) -> bool:
    """A rank's own words, with which the class agrees, say more than the class."""
    match = root.first.match if root and root.first.by_itself else None
    return bool(match and match.text and match.rule.state == state.state.value)


def _is_hearsay(run: Observed, state: RunState) -> bool:
    """Where the scheduler has not said it, the agent took out of memory from a rank's words."""
    name = State.OUT_OF_MEMORY.value
    said = any(event.type == "job_ended" and event.text("state") == name for event in run.events)
    asked = run.job is not None and run.job.state.value == name
    return state.state.value == name and not said and not asked


def _victim(state: RunState, found: Sequence[Witness], root: Root | None) -> Witness | None:
    if state.state is State.OUT_OF_MEMORY:
        killed = [one for one in found if one.signal == 9 or one.code == 137]
        if killed:
            return min(killed, key=lambda one: one.ended)
        return root.first if root else None
    return None


def _scheduled(case: Case, state: RunState, told: Match, victim: Witness | None) -> Verdict:
    silent = [node for node in state.nodes if node.ended is None]
    node = victim.node if victim else None
    if state.state is State.NODE_FAILURE and len(silent) == 1:
        node = silent[0].node
    blamed = f"node {node} ({silent[0].host}): " if victim is None and node is not None else ""
    if victim is not None:
        blamed = f"{_blame(Root(victim))}: "
    evidence = evidence_of(case, Root(victim), victim) if victim else ()
    return Verdict(
        "failed",
        state.state.value,
        sentence(f"{blamed}{told.cause}"),
        case.attempt,
        first_of(victim) if victim else None,
        node,
        told.rule.id,
        sentence(told.cause),
        told.rule.next,
        evidence,
    )


def _by_launcher(run: Observed, case: Case, state: RunState, root: Root | None) -> Verdict:
    """No rank failed by itself: the launch, the launcher, or somebody from outside."""
    failed = [node for node in state.nodes if is_launch_reason(node.reason)]
    for node in failed[:_MOST_NODES]:
        tail = read_tail(run.layout.node(case.attempt, node.node) / "launcher.log")
        match = explain(
            case.rules, Ending("launcher", ended=node.reason, exception="", said=tail.lines)
        )
        if match is not None:
            evidence = () if match.line is None else (line_of(case, tail, match),)
            words = f"node {node.node} ({node.host}): {match.cause}"
            return Verdict(
                "failed",
                match.rule.state,
                sentence(words),
                case.attempt,
                node=node.node,
                rule=match.rule.id,
                cause=sentence(match.cause),
                next=match.rule.next,
                evidence=evidence,
            )
    # Ranks of other nodes were told to end because of that one: no word on them is on the cause.
    first = root.first if root and not failed else None
    match = first.match if first else None
    return Verdict(
        "failed" if state.state.ended else "unknown",
        state.state.value,
        state.words if state.state is State.UNKNOWN else state.reason,
        case.attempt,
        first_of(first) if first else None,
        failed[0].node if failed else first.node if first else None,
        match.rule.id if match else "",
        sentence(match.cause) if match else "",
        match.rule.next if match else "",
        evidence_of(case, root, root.first) if root else (),
    )


def _elsewhere(case: Case, node: int | None) -> tuple[Tail, Match] | None:
    """A rank that said nothing of its end: the launcher or the scheduler may have."""
    logs = [case.layout.scheduler_log]
    if node is not None:
        logs.insert(0, case.layout.node(case.attempt, node) / "launcher.log")
    for path in logs:
        tail = read_tail(path)
        place = "launcher" if path.name == "launcher.log" else "scheduler"
        match = explain(case.rules, Ending(place, said=tail.lines))
        if match is not None and match.rule.anywhere:
            return tail, match
    return None
