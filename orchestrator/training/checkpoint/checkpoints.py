"""A training's checkpoints: where it goes on from, and when it saves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from orchestrator.checkpoints.names import StepFolder
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.training.agreement import together
from orchestrator.training.checkpoint.policy import Policy
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.checkpoint.resume import (
    best_so_far,
    committed_of,
    newest_state,
    resume,
)
from orchestrator.training.checkpoint.saver import Saver
from orchestrator.training.engines.base import Engine
from orchestrator.training.errors import PlanMismatch
from orchestrator.training.layout import Layout
from orchestrator.training.memory.fitting import Found
from orchestrator.training.metrics import say, warn
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank


class Checkpoints:
    """Made and used by all ranks together, around `Trainer.fit`. Without a run folder, or with
    nothing in the spec's `checkpoint` section, it saves nothing; it resumes all the same."""

    def __init__(
        self,
        engine: Engine,
        plan: TrainingPlan,
        rank: Rank,
        layout: Layout,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._plan, self._rank = engine, plan, rank
        self._policy = Policy(plan.checkpoint, clock)
        self._root: Path | None = None
        self._saver: Saver | None = None
        self._best: float | None = None
        self._best_before: float | None = None
        if plan.run_dir is not None:
            self._root = RunLayout(plan.run_dir).checkpoints
            if self._policy.ever:
                self._saver = Saver(engine, plan, rank, layout, plan.run_dir)
        self._from: StepFolder | None = None
        self.goes_on = False
        """Whether there is a checkpoint to go on from; known once `found` was asked."""

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._saver is None:
            return
        if isinstance(error, UserError):  # raised on all ranks: what is under way is still good
            with suppress(RuntimeError, UserError):
                self._saver.finish()
        if error is None or isinstance(error, UserError):
            self._saver.close()

    @property
    def stalled(self) -> float:
        """Seconds that training has stood still for saving."""
        return self._saver.stalled if self._saver is not None else 0.0

    def found(self) -> Found | None:
        """The micro batch that the training to go on with had found, where it had to."""
        state = None if self._root is None else newest_state(self._root, self._plan, self._rank)
        self.goes_on = state is not None
        if state is None or state.get("micro_batch") is None:
            return None
        return Found(state["micro_batch"], state["samples_a_rank"])

    def resume(self, *, anew: bool) -> Progress:
        """Load the newest checkpoint that is whole; where there is none, nothing is done yet.

        `anew`: these ranks have started in place of others of the same attempt, so that with
        `resume: never` too they go on from what those have saved. Raises TrainingFailed,
        PlanMismatch, UntrustedCheckpoint.
        """
        if self._root is None:
            return Progress()
        with together(self._rank):
            if self._rank.is_main and not anew:
                self._refuse_mixing(self._root)
        found = resume(self._engine, self._root, self._plan, self._rank, warn)
        if found is None:
            return Progress()
        progress, self._from, damaged = found
        if self._saver is not None:
            self._saver.newest, self._saver.damaged = self._from, set(damaged)
            if self._plan.checkpoint.best is not None:
                score = self._policy.score
                best = best_so_far(self._root, self._plan, self._rank, score, self._from)
                if best is not None:
                    self._best, self._saver.best = best
        if self._rank.is_main:
            say(f"resumed after step {progress.step} from {self._from.path}")
        return progress

    def _refuse_mixing(self, root: Path) -> None:
        there = committed_of(root, self._plan)
        if self._plan.checkpoint.resume == "never" and there:
            raise PlanMismatch(
                f"checkpoint.resume is never, and attempt {self._plan.attempt} has saved "
                f"{there[-1].path} already",
                hint="give the new start a number of its own as PTX_ATTEMPT, or resume: auto",
            )

    def due(self, step: int) -> bool:
        """Whether to save after `step` steps, known without having seen how they went."""
        return self._saver is not None and self._policy.due(step)

    def time_is_up(self) -> bool:
        """Whether rank 0's clock asks all ranks to save, once."""
        return self._saver is not None and self._rank.is_main and self._policy.time_is_up()

    def is_better(self, metrics: Mapping[str, float]) -> bool:
        """Whether this is the best training so far, by checkpoint.best."""
        score = self._policy.score(metrics)
        if self._saver is None or score is None:
            return False
        return self._best is None or score > self._best

    def save(
        self, progress: Progress, metrics: Mapping[str, float], *, last: bool = False
    ) -> str | None:
        """Begin to save, unless this step is saved already or just being saved.

        With `last`, or without checkpoint.asynchronous, it waits; why it failed then, if it did.
        """
        saver = self._saver
        if saver is None:
            return None
        self._policy.began()
        if not progress.step:  # the minutes may pass while data are read; nothing is done yet
            return None
        if saver.last_step() != progress.step:
            self._finish(saver)
            better = self.is_better(metrics)
            saver.save(progress, metrics, best=better, last=last)
            self._best_before = self._best
            if better:
                self._best = self._policy.score(metrics)
        wait = last or not self._plan.checkpoint.asynchronous
        return self._finish(saver) if wait else None

    def _finish(self, saver: Saver) -> str | None:
        problem = saver.finish()
        if problem is not None:  # the best one before is still the best
            self._best = self._best_before
        return problem

    def end(self, progress: Progress, metrics: Mapping[str, float]) -> str | None:
        """After the last step: save if asked to, and wait for what is under way. Why there is no
        checkpoint of this step, where there should be one."""
        if self._saver is None:
            return None
        if self._policy.at_end:
            return self.save(progress, metrics, last=True)
        self._finish(self._saver)
        return None

    def stop(self, progress: Progress, metrics: Mapping[str, float]) -> tuple[str, str | None]:
        """Training stops before its end: save if asked to. What a person should know of where the
        run goes on, and why there is no checkpoint of this step, where there should be one."""
        problem = None
        if self._saver is not None:
            if self._policy.on_stop and progress.step:
                problem = self.save(progress, metrics, last=True)
            else:
                self._finish(self._saver)
        newest = self._saver.newest if self._saver is not None else self._from
        if newest is not None and newest.step == progress.step:
            return f"checkpoint: {newest.path}", problem
        words = f"no checkpoint was written{self._why_none(progress, problem)}"
        if newest is not None:
            words += f"; the newest is {newest.path}"
        return words, problem

    def way_back(self) -> str:
        """Where a training that has failed can go on from, as the end of a sentence. Waits for the
        save that is under way; all ranks call it together."""
        if self._saver is None:
            return ""
        with suppress(RuntimeError, UserError):
            self._saver.finish()
        return self._saver.way_back()

    def _why_none(self, progress: Progress, problem: str | None) -> str:
        if problem is not None:
            return f": {problem}"
        if self._root is None:
            return " (there is no run folder)"
        return "" if not progress.step else " (checkpoint.on_signal is off)"
