"""The supervisor of a SLURM job, in its batch step: one attempt after another, in the allocation
while that is of use, else through the queue."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.agent.allocation import Allocation, time_left
from orchestrator.agent.attempts import (
    attempt_numbers,
    begin_attempt,
    past_of,
    read_events,
    read_nodes,
    record_end,
    unjudged,
)
from orchestrator.agent.classes import (
    Evidence,
    Policy,
    Verdict,
    judge,
    pause,
    twice_failed,
)
from orchestrator.agent.events import Events
from orchestrator.agent.lifeline import PORT, Anchor
from orchestrator.agent.linux import set_name
from orchestrator.agent.place import NotStartable, read_plan
from orchestrator.agent.spawn import spawn
from orchestrator.agent.stderr import tell

_TICK = 0.5
_WAITED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD}
_ENDED_BY_SLURM = 90.0
"""Seconds within which SLURM ends the batch step of a job that it has requeued."""
_LEAVES = ("completed", "failed", "out-of-memory", "cancelled", "launch-error")
"""Classes after which, without retry, the run needs its secrets no more."""


class Job:
    def __init__(self, plan_path: Path, plan: Mapping[str, Any], command: Sequence[str]) -> None:
        self._plan = plan
        self._command = list(command)
        self._run_dir = Path(plan["run_dir"])
        self._script = plan_path.parent / "job.sbatch"
        self._shared = bool(plan["group_shared"])
        self._restart: Mapping[str, Any] = plan["restart"]
        self._policy = Policy(
            int(self._restart["max"]), self._restart["on"], float(self._restart["backoff"])
        )
        self._path = self._run_dir / "events" / "job.jsonl"
        if not self._path.parent.is_dir():
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._events = Events(self._path, 0o660 if self._shared else 0o600)
        self._allocation = Allocation(os.environ)
        self._anchor = Anchor()
        self._terminated = False
        self._retries = 0

    def run(self) -> int:
        """All attempts of this job; its exit code."""
        facts = self._allocation.facts()
        if not self._judge_the_last(facts):
            return 1
        while True:
            chosen, short = self._choose()
            if self._terminated:
                return 1
            if short and not self._came_from(short):
                return self._elsewhere(short, facts)
            attempt = begin_attempt(self._run_dir, shared=self._shared)
            verdict = self._attempt(attempt, chosen)
            if max(attempt_numbers(self._run_dir / "attempts"), default=0) > attempt:
                return 1  # SLURM gave this node up, and the run goes on elsewhere
            facts = self._allocation.facts()
            verdict = self._place(verdict, facts)
            record_end(self._events, attempt, verdict)
            if not verdict.retry:
                self._forget_secrets(verdict)
                return 0 if verdict.name == "completed" else 1
            if self._terminated:
                return 1  # SLURM brings it back by itself
            if verdict.where != "allocation":
                return self._requeue(attempt, verdict.name, verdict.where)
            self._sleep(pause(self._policy, self._retries))
            self._retries += 1

    def _attempt(self, attempt: int, nodes: Sequence[str]) -> Verdict:
        """One srun of the agents, from job_started to the judgement."""
        self._events.append(
            "job_started",
            job_id=self._allocation.job_id,
            attempt=attempt,
            host=os.uname().nodename,
            nodes=list(nodes),
        )
        begun = time.monotonic()
        self._srun(attempt, nodes)
        evidence = self._evidence(attempt, nodes)
        told = self._told()
        down = self._allocation.down(nodes) if told == "node-failure" else ()
        evidence = evidence._replace(told=told, down=down, seconds=time.monotonic() - begun)
        return judge(evidence, past_of(read_events(self._path)), self._policy)

    def _evidence(self, attempt: int, nodes: Sequence[str]) -> Evidence:
        left = read_nodes(self._run_dir, attempt)
        return Evidence(list(nodes), left.ended, len(left.started), left.warned)

    def _srun(self, attempt: int, nodes: Sequence[str]) -> None:
        """Until srun has ended. SLURM signals srun itself, as it does every process of the job."""
        program, *options = self._command
        # Agents and supervisor count the nodes in the same order, which is SLURM's own.
        chosen = (
            [] if list(nodes) == self._allocation.nodes() else [f"--nodelist={','.join(nodes)}"]
        )
        # SLURM counts a dead node's step as running, and what it held as taken, for good; memory
        # is shared between steps only where all of the job's is asked for.
        again = ["--overlap", "--mem=0"] if self._retries else []
        argv = [program, *chosen, *again, *options]
        env = {
            **os.environ,
            "PTX_ATTEMPT": str(attempt),
            "PTX_BATCH_HOST": self._allocation.name,
            PORT: str(self._anchor.port),
        }
        grace = self._grace()
        if grace is not None:
            env["PTX_GRACE"] = f"{grace:g}"
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            srun = spawn(argv, env, mask=(), stdin=nothing, stdout=1, stderr=2)
        except OSError as error:
            tell(f"{program} cannot be started: {error.strerror}")
            return
        finally:
            os.close(nothing)
        while os.waitpid(srun, os.WNOHANG)[0] == 0:
            self._wait(_TICK)

    def _grace(self) -> float | None:
        """What the agents may give the ranks after SIGTERM, to be done before SLURM's SIGKILL."""
        if self._restart.get("grace") is not None:
            return float(self._restart["grace"])
        wait = self._allocation.kill_wait()
        return None if wait is None else max(1.0, wait - min(3.0, wait / 4))

    def _choose(self) -> tuple[list[str], str]:
        """The nodes of the next attempt, and why there are too few of them."""
        nodes = self._allocation.nodes()
        wanted = int(self._plan["nodes"])
        failures = past_of(read_events(self._path)).failures
        bad = set(twice_failed(failures)) & set(nodes)
        dead = self._allocation.down(nodes) if self._retries or len(nodes) > wanted else set()
        good = [name for name in nodes if name not in bad | dead]
        if len(good) < wanted:
            named = ", ".join(sorted(bad | dead))
            return nodes[:wanted], f"{named} failed before or is down"
        # A run on one node has a second machine to look after it where there is one to spare.
        last_choice = {self._allocation.name} if wanted == 1 else set()
        best = sorted(good, key=lambda name: (failures.get(name, 0), name in last_choice))[:wanted]
        return [name for name in nodes if name in best], ""

    def _judge_the_last(self, facts: Mapping[str, str]) -> bool:
        """What an earlier supervisor could not say any more. Whether this job is to go on."""
        last = unjudged(read_events(self._path))
        if last is None:
            return True
        attempt, nodes = int(last.get("attempt", 0)), [str(n) for n in last.get("nodes") or ()]
        if attempt < 0 or not nodes:
            return True
        evidence = self._evidence(attempt, nodes)
        silent = [name for rank, name in enumerate(nodes) if rank not in evidence.ended]
        down = self._allocation.down(nodes)
        name = "node-failure" if down & set(silent) or (silent and evidence.ended) else "preempted"
        evidence = evidence._replace(told=name, down=down & set(silent))
        verdict = judge(evidence, past_of(read_events(self._path)), self._policy)
        record_end(self._events, attempt, verdict)
        return verdict.retry or last.get("job_id") != facts.get("JobId", self._allocation.job_id)

    def _told(self) -> str | None:
        """Why SLURM ends this job, None where it does not. One that it has put back into the queue
        counts one restart more than this start knows of; one that was cancelled does not.

        Also asked where no SIGTERM came: a batch host that SLURM has given up hears of nothing.
        """
        facts = self._allocation.facts()
        self._terminated = self._terminated or facts.get("JobState", "RUNNING") != "RUNNING"
        if not self._terminated:
            return None
        if int(facts.get("Restarts") or 0) > self._allocation.restarts:
            down = self._allocation.down(self._allocation.nodes())
            return "node-failure" if down else "preempted"
        left = time_left(facts)
        return "time-limit" if left is not None and left <= 1 else "cancelled"

    def _place(self, verdict: Verdict, facts: Mapping[str, str]) -> Verdict:
        """Where the retry can really be."""
        if not verdict.retry or self._terminated:
            return verdict
        where = verdict.where
        left = time_left(facts)
        needed = pause(self._policy, self._retries) + float(self._restart.get("warning") or 0)
        if where == "allocation" and left is not None and left <= needed:
            where = "requeue"
        if where == "requeue" and facts.get("Requeue") == "0":
            where = "new-job"
        return verdict._replace(where=where)

    def _came_from(self, why: str) -> bool:
        """Whether this very start is the answer of the queue to that complaint."""
        events = list(read_events(self._path))
        return bool(events) and (events[-1].get("type"), events[-1].get("reason")) == (
            "requeue",
            why,
        )

    def _elsewhere(self, why: str, facts: Mapping[str, str]) -> int:
        """Back into the queue, because these nodes will not do."""
        attempt = max(
            (int(e["attempt"]) for e in read_events(self._path) if e.get("type") == "job_started"),
            default=0,
        )
        where = "new-job" if facts.get("Requeue") == "0" else "requeue"
        return self._requeue(attempt, why, where)

    def _requeue(self, attempt: int, reason: str, where: str | None) -> int:
        """Once. Where SLURM refuses, or is known to, a new job continues the run."""
        past = past_of(read_events(self._path))
        avoid = twice_failed(past.failures)
        refused = "its requeueing is switched off"
        if where == "requeue":
            self._events.append("requeue", attempt=attempt, reason=reason)
            refused = self._allocation.requeue()
        if not refused:
            if avoid and (said := self._allocation.exclude(avoid)):
                tell(f"SLURM does not keep the job away from {', '.join(avoid)}: {said}")
            self._sleep(_ENDED_BY_SLURM, through_signals=True)
            return 1
        if self._terminated:
            return 1
        job_id, said = self._allocation.submit_again(str(self._script), avoid)
        if not job_id:
            tell(
                f"the run cannot go on: the job is not requeued ({refused}), nor a new one: {said}"
            )
            return 1
        self._events.append("submitted", job_id=job_id)
        return 1

    def _forget_secrets(self, verdict: Verdict) -> None:
        if verdict.name in _LEAVES:
            (self._run_dir / "secrets").unlink(missing_ok=True)

    def _sleep(self, seconds: float, *, through_signals: bool = False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (through_signals or not self._terminated):
            self._wait(min(_TICK, max(0.0, end - time.monotonic())))

    def _wait(self, seconds: float) -> None:
        received = signal.sigtimedwait(_WAITED, seconds)
        while received is not None:
            if received.si_signo == signal.SIGTERM:
                self._terminated = True
            received = signal.sigtimedwait(_WAITED, 0)
        self._anchor.serve()


def run_job(plan_path: str, command: Sequence[str]) -> int:
    """Supervise this SLURM job; `command` is the srun of its agents. 0 when the run completed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    set_name("ptx-job")
    try:
        path = Path(plan_path).absolute()
        plan = read_plan(path)
        os.umask(0o007 if plan["group_shared"] else 0o077)
        return Job(path, plan, command).run()
    except (NotStartable, OSError) as error:
        tell(str(error))
        return 1
