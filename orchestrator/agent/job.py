"""The supervisor of a SLURM job, in its batch step: one attempt after another, in the allocation
while that is of use, else through the queue."""

from __future__ import annotations

import math
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.attempts import (
    attempt_numbers,
    begin_attempt,
    completed_before,
    newest_attempt,
    read_events,
    record_end,
    requeued_for,
)
from orchestrator.agent.classes import Policy, Verdict, pause
from orchestrator.agent.clients import cancelled, first_attempt, replaced
from orchestrator.agent.events import Events
from orchestrator.agent.judgement import Judge
from orchestrator.agent.lifeline import Anchor
from orchestrator.agent.linux import set_name
from orchestrator.agent.node_choice import choose
from orchestrator.agent.place import NotStartable, read_plan
from orchestrator.agent.placement import place, revoked
from orchestrator.agent.queue import Queue
from orchestrator.agent.srun import start_srun
from orchestrator.agent.stderr import tell
from orchestrator.agent.step_watch import StepWatch
from orchestrator.agent.takeover import Inheritance, end_steps, inheritance, living_sruns

_TICK = 0.5
_WAITED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD}
TRY_AGAIN = 75
"""Exit code of a supervisor that failed (EX_TEMPFAIL): the batch script starts another."""
_LEAVES = ("completed", "failed", "out-of-memory", "cancelled", "launch-error")
"""Classes after which, without retry, the run needs its secrets no more."""


class Job:
    def __init__(self, plan_path: Path, plan: Mapping[str, Any], command: Sequence[str]) -> None:
        self._plan = plan
        self._command = list(command)
        self._script = plan_path.parent / "job.sbatch"
        self._run_dir = Path(plan["run_dir"])
        self._shared = bool(plan["group_shared"])
        self._restart: Mapping[str, Any] = plan["restart"]
        self._policy = Policy.of(self._restart)
        self._path = self._run_dir / "events" / "job.jsonl"
        if not self._path.parent.is_dir():
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._events = Events(self._path, 0o660 if self._shared else 0o600)
        self._allocation = Allocation(os.environ)
        own, since = self._allocation, first_attempt(self._run_dir)
        told = list(read_events(self._path))
        self._inherited = inheritance(told, own.job_id, own.restarts, since)
        self._over = completed_before(told, own.job_id, since)
        # On its first start a job may bear the number of an earlier one, of another cluster.
        self._replaced = own.restarts > 0 and replaced(self._run_dir, told, own.job_id)
        self._anchor = Anchor(self._inherited.port if self._inherited else 0)
        self._hears = partial(self._sleep, through_signals=True)
        self._judge = Judge(self._run_dir, self._path, self._policy, self._allocation, self._hears)
        self._queue = Queue(
            self._allocation, self._judge, self._events, self._run_dir, self._script, self._sleep
        )
        self._retries = 0

    def run(self) -> int:
        """All attempts of this job; its exit code."""
        if self._replaced:
            tell("SLURM has started this job again, but `ptx resume` has put another in its place")
            return 1
        code = self._attempts()
        if cancelled(self._run_dir):
            self._forget_secrets("cancelled", newest_attempt(read_events(self._path)))
        return code

    def _attempts(self) -> int:
        code: int | None = None
        if self._inherited is not None:
            code = self._take_over(self._inherited)
        elif self._over is not None:
            # SLURM had not heard of that yet when it took the nodes away: it requeued the job.
            attempt, name = int(self._over["attempt"]), str(self._over.get("class"))
            tell(f"SLURM has started this job again, but attempt {attempt} ended the run: {name}")
            code = self._follow(attempt, name, None)
        elif not self._judge_the_last():
            code = 1
        if code is not None:
            return code
        while True:
            chosen, short = self._choose()
            if (code := self._between()) is not None:
                return code
            if short and not requeued_for(read_events(self._path), short):
                requeued = self._allocation.facts().get("Requeue") != "0"
                return self._elsewhere(short, "requeue" if requeued else "new-job")
            attempt = begin_attempt(self._run_dir, shared=self._shared)
            code = self._conclude(attempt, self._attempt(attempt, chosen))
            if code is not None:
                return code

    def _between(self) -> int | None:
        """The exit code of a job that is to begin no further attempt: it was cancelled, or SLURM
        ends it between two of them. None where it goes on."""
        told = self._judge.told() if self._judge.ending else None
        if told == "cancelled" or cancelled(self._run_dir):
            return self._queue.give_up()
        if not self._judge.ending:
            return None
        if told in self._policy.on and not self._judge.returns:
            return self._elsewhere(str(told), "new-job")
        return 1

    def _conclude(self, attempt: int, verdict: Verdict) -> int | None:
        """Put an attempt's end on record, and do what follows from it."""
        if max(attempt_numbers(self._run_dir / "attempts"), default=0) > attempt:
            return 1  # SLURM gave this node up, and the run goes on elsewhere
        verdict = self._place(verdict)
        record_end(self._events, attempt, verdict)
        return self._follow(attempt, verdict.name, verdict.where if verdict.retry else None)

    def _follow(self, attempt: int, name: str, where: str | None) -> int | None:
        """The exit code of this job; None where the next attempt is to begin in it now."""
        if where is None:
            self._forget_secrets(name, attempt)
            return 0 if name == "completed" else 1
        if self._judge.ending and where != "new-job":
            return 1  # SLURM brings it back by itself
        if where != "allocation":
            return self._queue.go_on(attempt, name, where)
        self._sleep(pause(self._policy, self._retries))
        self._retries += 1
        return None

    def _attempt(self, attempt: int, nodes: Sequence[str]) -> Verdict:
        """One srun of the agents, from job_started to the judgement."""
        self._events.append(
            "job_started",
            job_id=self._allocation.job_id,
            restarts=self._allocation.restarts,
            attempt=attempt,
            host=os.uname().nodename,
            nodes=list(nodes),
            port=self._anchor.stay(),
        )
        begun, watch = time.time(), self._watch(attempt, nodes)
        self._srun(attempt, nodes, watch)
        return self._judge.judge(attempt, nodes, begun, watch.lifeless)

    def _watch(self, attempt: int, nodes: Sequence[str]) -> StepWatch:
        return StepWatch(self._run_dir, attempt, nodes, self._plan, self._allocation)

    def _take_over(self, left: Inheritance) -> int | None:
        """Go on where a supervisor was killed. What it had started knows nothing of that, and is
        not disturbed."""
        self._retries = left.retries
        if left.end is not None:
            where = str(left.end.get("where")) if left.end.get("retry") else None
            if where == "new-job" and self._queue.has_gone_on():
                return 1
            return self._follow(left.attempt, str(left.end.get("class")), where)
        sruns = living_sruns(self._allocation.number, left.attempt)
        tell(f"attempt {left.attempt} is taken over from a supervisor that was killed")
        watch = self._watch(left.attempt, left.nodes)
        self._wait_for(lambda: not any(process.alive() for process in sruns), watch)
        if sruns or self._judge.all_ended(left.attempt, left.nodes):
            verdict = self._judge.judge(left.attempt, left.nodes, left.begun, watch.lifeless)
        else:
            end_steps(left, self._judge, self._allocation, self._seconds, self._hears)
            verdict = self._judge.judge_unseen(left.attempt, left.nodes, left.begun)
        return self._conclude(left.attempt, verdict)

    def _srun(self, attempt: int, nodes: Sequence[str], watch: StepWatch) -> None:
        """Until srun has ended. SLURM signals srun itself, as it does every process of the job."""
        srun = start_srun(
            self._command,
            self._allocation,
            nodes,
            attempt,
            again=self._retries > 0,
            port=self._anchor.stay(),
            grace=self._grace(),
        )
        if srun is not None:
            self._wait_for(lambda: os.waitpid(srun, os.WNOHANG)[0] != 0, watch)

    def _wait_for(self, ended: Callable[[], bool], watch: StepWatch) -> None:
        """For less where SLURM ends the job and the ranks have more time than it gives: who is
        killed with them brings no run back."""
        deadline = math.inf
        while not ended():
            self._wait(_TICK)
            if not self._judge.ending:
                watch.look()
                continue
            if deadline == math.inf and (wait := self._allocation.kill_wait()) is not None:
                own = float(self._restart.get("grace") or 0) > wait
                left = min(8.0, wait / 4) if own else min(2.0, wait / 6)
                deadline = time.monotonic() + wait - left
            if time.monotonic() > deadline:
                facts = self._allocation.facts()
                if not facts:
                    continue  # another srun would start beside ranks that nobody ends
                if facts.get("JobState") != "RUNNING":
                    return
                self._judge.ending, deadline = False, math.inf  # it was meant for this process

    def _grace(self) -> float | None:
        """What the agents may give the ranks after SIGTERM, to be done before SLURM's SIGKILL."""
        if self._restart.get("grace") is not None:
            return float(self._restart["grace"])
        wait = self._allocation.kill_wait()
        return None if wait is None else max(1.0, wait - min(3.0, wait / 4))

    def _seconds(self) -> float:
        """Those that ranks have to save and end."""
        return self._grace() or float(self._plan["grace_seconds"])

    def _choose(self) -> tuple[list[str], str]:
        past, wanted = self._judge.past(), int(self._plan["nodes"])
        return choose(self._allocation, wanted, past, self._script, again=self._retries > 0)

    def _judge_the_last(self) -> bool:
        """What an earlier supervisor could not say any more. Whether this job is to go on."""
        last = self._judge.judge_last()
        if last is None:
            return True
        attempt, verdict, goes_on = last
        record_end(self._events, attempt, verdict)
        return goes_on

    def _place(self, verdict: Verdict) -> Verdict:
        """Where the retry can really be, if anybody still wants it."""
        judge = self._judge
        if cancelled(self._run_dir):
            return revoked(verdict)
        if judge.ending and judge.returns:
            return verdict
        needed = pause(self._policy, self._retries) + float(self._restart.get("warning") or 0)
        return place(verdict, judge.facts, ending=judge.ending, needed=needed)

    def _elsewhere(self, why: str, where: str) -> int:
        """Back into the queue between two attempts."""
        return self._queue.go_on(newest_attempt(read_events(self._path)), why, where)

    def _forget_secrets(self, name: str, attempt: int) -> None:
        """Unless somebody has started the run again meanwhile: they are the next job's then."""
        if name in _LEAVES and first_attempt(self._run_dir) <= attempt:
            (self._run_dir / "secrets").unlink(missing_ok=True)

    def _sleep(self, seconds: float, *, through_signals: bool = False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (through_signals or not self._judge.ending):
            self._wait(min(_TICK, max(0.0, end - time.monotonic())))

    def _wait(self, seconds: float) -> None:
        received = signal.sigtimedwait(_WAITED, seconds)
        while received is not None:
            if received.si_signo == signal.SIGTERM:
                self._judge.ending = True
            received = signal.sigtimedwait(_WAITED, 0)
        self._anchor.serve()


def run_job(plan_path: str, command: Sequence[str]) -> int:
    """Supervise this SLURM job; `command` is the srun of its agents. 0 when the run completed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    set_name("ptx-job")
    path = Path(plan_path).absolute()
    try:
        plan = read_plan(path)
    except NotStartable as error:
        tell(str(error))
        why = error.__cause__
        fails = isinstance(why, OSError) and not isinstance(why, FileNotFoundError)
        return TRY_AGAIN if fails else 1
    os.umask(0o007 if plan["group_shared"] else 0o077)
    try:
        return Job(path, plan, command).run()
    except Exception:
        # A filesystem that fails for a minute, or a mistake of ours: the next one takes over.
        tell(traceback.format_exc())
        return TRY_AGAIN
