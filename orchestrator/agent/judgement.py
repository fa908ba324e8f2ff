"""What became of an attempt on SLURM: what its nodes have left, and what SLURM says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.agent.allocation import Allocation, time_left
from orchestrator.agent.attempts import (
    past_of,
    read_events,
    read_nodes,
    to_be_followed,
    unjudged,
)
from orchestrator.agent.classes import OBEDIENT, Evidence, Past, Policy, Verdict, judge
from orchestrator.agent.clients import first_attempt
from orchestrator.agent.stderr import tell

_AT_ONCE = 5.0
"""Seconds between SLURM's decision to preempt a job without GraceTime and its end, at most."""
_PATIENCE = 1800.0
"""Seconds for which a job asks again where SLURM is silent and it or its ranks were told to end.
SLURM's SIGKILL comes long before, where it was SLURM that told them."""
_SAYS_SO = 10.0
"""Seconds of silence after which the scheduler's log says what is waited for."""
_SETTLES = 5.0
"""Seconds within which SLURM says of a job that it ends it, once it has sent SIGTERM."""
_HEARS = 0.1
"""Seconds in which a signal is heard that came as srun ended."""
_STRANGERS_MOST = 3
"""Such ends in a row: what sends SIGTERM again and again means it."""
_STRANGERS = "its processes were told to end (SIGTERM), and not by SLURM"
_UNEXPLAINED = "its processes were told to end (SIGTERM), and SLURM does not say why"
_UNSEEN = "the supervisor of the job was killed, and srun with it"


class Judge:
    def __init__(
        self,
        run_dir: Path,
        events: Path,
        policy: Policy,
        allocation: Allocation,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`events` is the supervisors' own file; `sleep` hears signals."""
        self._run_dir, self._events = run_dir, events
        self._policy, self._allocation = policy, allocation
        self._sleep = sleep
        self.ending = False
        """SLURM is ending this job, by its word or by a SIGTERM."""
        self.returns = False
        """SLURM brings it back by itself."""
        self.facts: Mapping[str, str] = {}
        """What SLURM said last."""

    def past(self) -> Past:
        return past_of(read_events(self._events))

    def to_be_followed(self) -> Mapping[str, Any] | None:
        return to_be_followed(read_events(self._events))

    def all_ended(self, attempt: int, nodes: Sequence[str]) -> bool:
        """Whether the agent of every node has said how it ended."""
        return len(read_nodes(self._run_dir, attempt).ended) >= len(nodes)

    def judge(
        self,
        attempt: int,
        nodes: Sequence[str],
        begun: float,
        lifeless: Mapping[int, float] = MappingProxyType({}),
    ) -> Verdict:
        """Of an attempt whose srun has ended; `begun` in seconds since the epoch. `lifeless`: the
        nodes for which the supervisor itself has ended it."""
        self._sleep(_HEARS)
        evidence, signalled = self._evidence(attempt, nodes), self.ending
        evidence = evidence._replace(lifeless=lifeless)
        obeyed, past = _only_obeyed(evidence), self.past()
        # What has completed has, whatever SLURM says, and a job that it ends may wait in vain.
        told = None if _completed(evidence) else self.told(patient=obeyed)
        down = self._allocation.down(nodes) if told == "node-failure" else ()
        evidence = evidence._replace(told=told, down=down, seconds=time.time() - begun)
        if told is not None or not obeyed or evidence.warned:
            return judge(evidence, past, self._policy)
        if (signalled or not self.facts) and past.lost < _STRANGERS_MOST:
            # A host that is shut down in good order tells its processes before SLURM knows. Nor is
            # a job cancelled because SLURM is silent: before it comes back SLURM is asked again.
            verdict = judge(evidence._replace(told="node-failure"), past, self._policy)
            message = _STRANGERS if self.facts else _UNEXPLAINED
            return verdict._replace(message=message, nodes_failed=[])
        return judge(evidence, past, self._policy)

    def judge_unseen(self, attempt: int, nodes: Sequence[str], begun: float) -> Verdict:
        """Of an attempt whose srun was killed together with the supervisor before this one."""
        told = self.told() or "node-failure"
        down = self._allocation.down(nodes)
        evidence = self._evidence(attempt, nodes)
        evidence = evidence._replace(told=told, down=down, seconds=time.time() - begun)
        verdict = judge(evidence, self.past(), self._policy)
        if self.ending:
            return verdict
        where = "allocation" if verdict.retry else None
        return verdict._replace(message=_UNSEEN, where=where, nodes_failed=sorted(down))

    def judge_last(self) -> tuple[int, Verdict, bool] | None:
        """What the supervisor of an earlier start of this job, or of another job of the run, could
        not say any more: attempt, verdict, and whether this job is to go on. None where it did."""
        last = unjudged(read_events(self._events))
        if last is None:
            return None
        attempt, nodes = int(last.get("attempt", 0)), [str(n) for n in last.get("nodes") or ()]
        if attempt < 0 or not nodes:
            return None
        evidence = self._evidence(attempt, nodes)
        requeued = read_nodes(self._run_dir, attempt).requeued
        silent = [name for rank, name in enumerate(nodes) if rank not in evidence.ended]
        down = self._allocation.down(nodes) & set(silent)
        lost = down or (silent and evidence.ended) or requeued
        told = "node-failure" if lost else "preempted"
        verdict = judge(evidence._replace(told=told, down=down), self.past(), self._policy)
        if requeued and not silent:
            verdict = verdict._replace(message=requeued)
        others = last.get("job_id") != self._allocation.job_id
        others = others or attempt < first_attempt(self._run_dir)
        return attempt, verdict, verdict.retry or others

    def _evidence(self, attempt: int, nodes: Sequence[str]) -> Evidence:
        left = read_nodes(self._run_dir, attempt)
        return Evidence(list(nodes), left.ended, len(left.started), left.warned, hung=left.hung)

    def told(self, *, patient: bool = False) -> str | None:
        """Why SLURM ends this job, None where it does not. One that it has put back into the queue
        counts one restart more than this start knows of; one that was cancelled does not.

        Also asked where no SIGTERM came: a batch host that SLURM has given up hears of nothing.
        `patient` where nothing but the answer says why the ranks have ended.
        """
        facts = self.facts = self._facts(_PATIENCE if patient else 0.0)
        self.ending = self.ending or facts.get("JobState", "RUNNING") != "RUNNING"
        if not self.ending:
            # During a partition's GraceTime nobody but the ranks has been told. SLURM brings back
            # what it ends itself then, and nothing that has ended before.
            return "preempted" if _was_preempted(facts) else None
        self.returns = self._allocation.is_requeued(facts)
        if not self.returns and _was_preempted(facts):
            # The restart is counted in the moment in which the job is preempted: this one is
            # cancelled, as its partition or its QOS has it, or because it may not be requeued.
            return "preempted"
        # Where requeueing is forbidden SLURM counts nothing, and a node that is dead or silent says
        # nothing: the job may have been cancelled all the same.
        if _has_lost_a_node(facts):
            return "node-failure"
        if self.returns and self._allocation.down(self._allocation.nodes()):
            return "node-failure"
        if self.returns:
            return "preempted"
        left = time_left(facts)
        return "time-limit" if left is not None and left <= 1 else "cancelled"

    def _facts(self, patience: float) -> dict[str, str]:
        """Empty where SLURM is silent for longer than that; where it may be ending the job, for
        longer than it lets that live. A SIGTERM that is not SLURM's ends nothing."""
        asked = time.monotonic()
        told: float | None = None
        said = False
        while True:
            facts, now = self._allocation.facts(), time.monotonic()
            told = told or now if self.ending else None
            if facts:
                if told is None or self._is_ended(facts):
                    return facts
                if now > told + _SETTLES:
                    self.ending = False
                    return facts
            elif now >= asked + (patience if told is None else _PATIENCE):
                if said:
                    tell("SLURM still does not answer: what follows is decided without its word")
                self.ending = False
                return {}
            elif not said and now > asked + _SAYS_SO:
                tell("SLURM does not answer: what follows waits for its word")
                said = True
            self._sleep(1)

    def _is_ended(self, facts: Mapping[str, str]) -> bool:
        return facts.get("JobState") != "RUNNING" or self._allocation.is_requeued(facts)


def _completed(evidence: Evidence) -> bool:
    reasons = {str(event.get("reason")) for event in evidence.ended.values()}
    return len(evidence.ended) == len(evidence.hosts) and reasons == {"completed"}


def _only_obeyed(evidence: Evidence) -> bool:
    """Whether all nodes ended as they were told, and some not because they were done."""
    reasons = [str(event.get("reason")) for event in evidence.ended.values()]
    whole = len(reasons) == len(evidence.hosts)
    return whole and set(reasons) <= set(OBEDIENT) and set(reasons) != {"completed"}


def _has_lost_a_node(facts: Mapping[str, str]) -> bool:
    """Whether that ended the job: the reason comes with COMPLETING, the state follows."""
    return facts.get("JobState") == "NODE_FAIL" or facts.get("Reason") == "NodeDown"


def _was_preempted(facts: Mapping[str, str]) -> bool:
    """In this start of the job. One that was cancelled later, in its GraceTime, is cancelled."""
    when = facts.get("PreemptTime", "")
    if not when[:1].isdigit() or when < facts.get("StartTime", ""):
        return False
    if facts.get("JobState") in ("RUNNING", "PREEMPTED"):
        return True
    try:
        preempted, ended = map(datetime.fromisoformat, (when, facts.get("EndTime", "")))
    except ValueError:
        return False
    return (ended - preempted).total_seconds() <= _AT_ONCE
