"""What an attempt's end was, and whether another attempt follows. Pure, one table for SLURM and
this machine."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.agent.first_failure import failures_of, is_the_machines
from orchestrator.agent.progress import is_progress

Ended = Mapping[str, Any]
"""A node_ended event."""

_BUDGETED = "failed"
"""The reason in restart.on that stands for every class without one of its own."""
_NAMED = ("preempted", "time-limit", "node-failure")
_FREE = ("preempted", "node-failure")
_NEVER = ("completed", "cancelled", "out-of-memory")
"""Nothing to go on with, somebody's wish, or what would end the same way again."""
_MEMORY = re.compile(r"OutOfMemoryError|\bout of memory\b|\bMemoryError\b|oom[-_ ]?kill", re.I)
_BROKEN = re.compile(r"^(?:\w+\.)*(?:ImportError|ModuleNotFoundError|SyntaxError|IndentationError)")
"""What no second start mends."""
_USAGE = 2
NOT_AGAIN = "; not started again: "
"""Between how an attempt ended and why none follows, in the message of attempt_ended."""
OBEDIENT = ("stopped", "terminated", "completed")
"""Reasons of nodes that ended as they were told, or were done."""
_LAUNCH = ("setup-failed", "check-failed", "launch-failed")
_PAST_ITS_START = 600.0
"""Seconds after which a script that never reports a step is taken to have made some."""
_LONGEST_PAUSE = 600.0
_UNEXPLAINED = 5
"""Ends in a row that nobody has to answer for: node failures of which the scheduler knows nothing,
and ports that another job had. What kills the agents each time (the job's memory limit may) would
otherwise do so for ever."""
_TWICE = "it failed the same way twice"
_UNTOLD = (
    "each time within ten minutes of its start, and told ptx of no step (a script does that by "
    "touching $PTX_STEP_FILE)"
)
_PORT_TAKEN = re.compile(r"^port \d+, where the ranks are to meet, is in use on ")
"""launch.sh's words; the next attempt has another port."""


class Policy(NamedTuple):
    """The spec's restart section."""

    max: int
    on: Sequence[str]
    backoff: float
    """Seconds before the first retry."""

    @classmethod
    def of(cls, restart: Mapping[str, Any]) -> Policy:
        return cls(int(restart["max"]), restart["on"], float(restart["backoff"]))


class Past(NamedTuple):
    """What earlier attempts left for the judgement of this one."""

    counted: int = 0
    """Retries that count, so far."""
    early: str | None = None
    """How the attempt before failed, where it had told of no step and was young."""
    failures: Mapping[str, int] = {}
    """Host to the number of attempts that ended because of it within a day; the latest last."""
    lost: int = 0
    """Ends in a row, up to this attempt, that were a node's failure or a port's."""
    blamed: Collection[str] = frozenset()
    """All hosts that an attempt ever ended because of."""


class Evidence(NamedTuple):
    hosts: Sequence[str]
    """Of every node rank."""
    ended: Mapping[int, Ended]
    """Node rank to its node_ended, for those that left one."""
    started: int = 0
    """How many nodes left a node_started."""
    warned: bool = False
    """SLURM's warning before the time limit came."""
    told: str | None = None
    """SLURM ends the job, and this is why: a class."""
    down: Collection[str] = ()
    """Those of the hosts that SLURM has given up."""
    seconds: float = 0.0
    """How long the attempt lasted."""
    hung: float | None = None
    """When a node gave notice of a hang, by its clock."""
    lifeless: Mapping[int, float] = {}
    """Node rank to seconds, of those that gave no sign of life, for which the attempt was ended."""


class Verdict(NamedTuple):
    name: str
    """The class."""
    message: str
    retry: bool
    counted: bool
    where: str | None
    """`allocation` or `requeue`; None without retry."""
    nodes_failed: Sequence[str]
    early: str | None
    """How it failed, where it told of no step and was young; kept for the next judgement."""


def judge(evidence: Evidence, past: Past, policy: Policy) -> Verdict:
    name, message, failed = _classify(evidence)
    early = _early(evidence, name, message)
    counted = _counts(name, message, evidence, past)
    reason = name if name in _NAMED else _BUDGETED
    why_not = _why_not(name, message, evidence, early, past)
    retry = reason in policy.on and name not in _NEVER and why_not is None
    if retry and counted and past.counted >= policy.max:
        retry = False
        why_not = f"restart.max ({policy.max}) is used up"
    if why_not and (policy.max or not counted):  # else nobody expects another start
        message = f"{message}{NOT_AGAIN}{why_not}"
    where = None
    if retry:
        where = "requeue" if name == "time-limit" or evidence.told else "allocation"
    return Verdict(name, message, retry, retry and counted, where, failed, early)


def pause(policy: Policy, retries: int) -> float:
    """Seconds to wait before the next attempt, after so many retries in a row: twice as long
    each time, up to ten minutes."""
    return min(policy.backoff * 2.0 ** min(retries, 30), max(_LONGEST_PAUSE, policy.backoff))


def _classify(evidence: Evidence) -> tuple[str, str, list[str]]:
    """Class, sentence, and the hosts that are to blame."""
    ended = evidence.ended
    reasons = {rank: str(event.get("reason")) for rank, event in ended.items()}
    hosts = evidence.hosts
    if len(ended) == len(hosts) and set(reasons.values()) == {"completed"}:
        return "completed", "all ranks exited with 0", []
    if evidence.told:
        name = "time-limit" if evidence.warned and evidence.told == "cancelled" else evidence.told
        dead = [host for host in hosts if host in evidence.down] or _silent(evidence)
        return name, _TOLD[name], dead if name == "node-failure" else []
    if evidence.lifeless:
        to_blame = [hosts[rank] for rank in sorted(evidence.lifeless)]
        return "node-failure", no_sign_of_life(hosts, evidence.lifeless), to_blame
    silent = _silent(evidence)
    if silent and ended:
        return "node-failure", f"{_listed(silent)} left no word while others did", silent
    if silent or not hosts:
        if evidence.started:
            return "node-failure", f"no agent left a word, of those on {_listed(hosts)}", silent
        return "launch-error", "srun started no agent; see scheduler.log", []
    hung = [rank for rank, reason in reasons.items() if reason == "hang"]
    failures = failures_of(ended, warned=evidence.warned)
    # A node that heard of the notice too late saw its ranks lose those that were ended for it; by
    # a clock that is behind they did so before.
    noticed = math.inf if evidence.hung is None else evidence.hung
    before = (one for one in failures if one.t <= noticed and not one.is_echo)
    if hung and not any(reasons[one.node] == "rank-failed" for one in before):
        return "hang", str(ended[hung[0]].get("message") or "no step for too long"), []
    broken = [rank for rank, reason in sorted(reasons.items()) if reason in _LAUNCH]
    if failures and not (broken and reasons[failures[0].node] in _LAUNCH):
        message = str(failures[0].about.get("message"))
        name = "out-of-memory" if _MEMORY.search(message) else "failed"
        return name, message, [hosts[failures[0].node]] if is_the_machines(failures) else []
    if broken:
        rank = broken[0]
        message = str(ended[rank].get("message") or f"{reasons[rank]} on {hosts[rank]}")
        return "launch-error", message, [hosts[rank]] if reasons[rank] == "check-failed" else []
    if evidence.warned:
        return "time-limit", _TOLD["time-limit"], []
    if all(reason in OBEDIENT for reason in reasons.values()):
        return "cancelled", "its nodes were told to stop (SIGTERM)", []
    return "unknown", "it ended, and nothing says why", []


_TOLD = {
    "cancelled": "the job was cancelled",
    "preempted": "SLURM took the nodes for another job",
    "node-failure": "a node of the job failed",
    "time-limit": "the time limit came",
    "out-of-memory": "SLURM ended the job for want of memory",
}


def no_sign_of_life(hosts: Sequence[str], lifeless: Mapping[int, float]) -> str:
    """`node 1 (gn02) has given no sign of life for 4 minutes`."""
    named = _listed([f"node {rank} ({hosts[rank]})" for rank in sorted(lifeless)])
    seconds = max(lifeless.values())
    lasts = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
    return f"{named} {'have' if len(lifeless) > 1 else 'has'} given no sign of life for {lasts}"


def _silent(evidence: Evidence) -> list[str]:
    return [host for rank, host in enumerate(evidence.hosts) if rank not in evidence.ended]


def _counts(name: str, message: str, evidence: Evidence, past: Past) -> bool:
    """Against restart.max. A time limit counts unless the ranks answered the warning and had got
    past their start: a job that saves nothing would begin anew for ever."""
    if (name == "node-failure" and not evidence.told) or _PORT_TAKEN.match(message):
        return past.lost >= _UNEXPLAINED
    if name == "time-limit":
        answered = any(event.get("reason") == "stopped" for event in evidence.ended.values())
        return not (answered and _past_its_start(evidence))
    return name not in _FREE


def _began(evidence: Evidence) -> Mapping[str, Any]:
    failures = failures_of(evidence.ended, warned=evidence.warned)
    return failures[0].about if failures else {}


def _past_its_start(evidence: Evidence) -> bool:
    stepped = any(event.get("stepped") for event in evidence.ended.values())
    return stepped or evidence.seconds >= _PAST_ITS_START


def _early(evidence: Evidence, name: str, message: str) -> str | None:
    if name in (*_NAMED, "completed", "cancelled") or _past_its_start(evidence):
        return None
    if _PORT_TAKEN.match(message):
        return f"{name}: {message}"  # another port is another matter
    if not _began(evidence).get("exception") and is_progress(message):
        return None  # the last line of a rank that did not say how it ended, and had made steps
    # Addresses, process numbers and ports differ between two starts.
    return f"{name}: {re.sub(r'0x[0-9a-fA-F]+|[0-9]+', '#', message)}"


def _why_not(
    name: str, message: str, evidence: Evidence, early: str | None, past: Past
) -> str | None:
    if name not in ("failed", "launch-error"):
        return None
    failure = _began(evidence)
    # What a rank only printed need not have ended it: Python leaves 1 for what nobody caught.
    if failure.get("exception") and failure.get("code") == 1 and _BROKEN.match(message):
        return "it would fail the same way"
    if failure.get("code") == _USAGE:
        return "exit code 2 says that it was called the wrong way"
    if early is not None and early == past.early:
        return _TWICE if name == "launch-error" else f"{_TWICE}, {_UNTOLD}"
    return None


def _listed(hosts: Sequence[str]) -> str:
    more = len(hosts) - 8
    return ", ".join(hosts[:8]) + (f" and {more} more" if more > 0 else "")


def twice_failed(failures: Mapping[str, int]) -> list[str]:
    """Hosts that the next attempt is to do without, the latest last."""
    return [host for host, times in failures.items() if times >= 2]
