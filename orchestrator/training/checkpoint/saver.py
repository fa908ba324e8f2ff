"""Saving while training goes on: copy at the step, write and commit behind its back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from orchestrator.checkpoints.commit import begin, commit, prune
from orchestrator.checkpoints.manifest import FileEntry, Manifest
from orchestrator.checkpoints.names import StepFolder, step_folder
from orchestrator.errors import UserError
from orchestrator.training.checkpoint.files import Copied, copied, write_rank_file
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.checkpoint.randomness import random_state
from orchestrator.training.engines.base import Engine
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.layout import AXES, Layout
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank


@dataclass(frozen=True)
class _Job:
    folder: StepFolder
    parts: list[Copied]
    random: Mapping[str, torch.Tensor]
    progress: Progress
    metrics: Mapping[str, float] = field(default_factory=dict)


class Saver:
    """Writes checkpoints of an engine. All ranks make one and call its methods together.

    The exchange about a save runs in the writing thread, over a process group of its own: on the
    training's group it could meet a collective of the loop.
    """

    def __init__(
        self, engine: Engine, plan: TrainingPlan, rank: Rank, layout: Layout, run_dir: Path
    ) -> None:
        self._engine, self._plan, self._rank, self._layout = engine, plan, rank, layout
        self._run_dir = run_dir
        self._group = dist.new_group(backend="gloo")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[str | None] | None = None
        self.stalled = 0.0
        """Seconds that training has stood still for saving."""
        self.last_step: int | None = None
        """Of the newest save that has begun."""

    def save(self, progress: Progress, metrics: Mapping[str, float]) -> str | None:
        """Begin a save of the state after `progress.step` steps.

        Waits for the one before, whose problem it returns, if it had one: one sentence, the same
        on all ranks. Without `checkpoint.asynchronous` it waits for this one too.
        """
        started = time.perf_counter()
        problem = self.finish()
        job = _Job(
            step_folder(self._run_dir / "checkpoints", progress.step, self._plan.attempt),
            copied(list(self._engine.pieces())),
            random_state(self._rank.device),
            Progress(progress.step, progress.samples, self._engine.scalars()),
            metrics,
        )
        self._running = self._thread.submit(self._write, job)
        self.last_step = progress.step
        if not self._plan.checkpoint.asynchronous:
            problem = self.finish() or problem
        self.stalled += time.perf_counter() - started
        return problem

    def finish(self) -> str | None:
        """Wait for the save that runs; None where there is none or it was committed, else why
        it was not, in one sentence that is the same on all ranks."""
        if self._running is None:
            return None
        running, self._running = self._running, None
        return running.result()

    def close(self) -> None:
        """Wait for the last save. Raises TrainingFailed where it was not committed."""
        problem = self.finish()
        self._thread.shutdown()
        if problem:
            raise TrainingFailed(
                f"the last checkpoint was not written: {problem}",
                hint="the one before it is whole; make room and resume",
            )

    def _write(self, job: _Job) -> str | None:
        problem = self._agreed(self._begin, job)
        if problem:
            return problem
        mode = 0o660 if self._plan.group_shared else 0o600
        mine: FileEntry | str
        try:
            mine = write_rank_file(job.folder.path, self._rank.rank, job.parts, job.random, mode)
        except OSError as error:
            mine = f"rank {self._rank.rank}: {error}"
        everyone: list[Any] | None = [None] * self._rank.world_size if self._rank.is_main else None
        dist.gather_object(mine, everyone, dst=0, group=self._group)
        return self._agreed(self._commit, job, everyone)

    def _agreed(self, act: Any, *given: Any) -> str | None:
        """Rank 0 acts; all get to know whether it went well."""
        said: list[str | None] = [None]
        if self._rank.is_main:
            try:
                said = [act(*given)]
            except (OSError, UserError) as error:
                said = [str(error)]
        dist.broadcast_object_list(said, src=0, group=self._group)
        return said[0]

    def _begin(self, job: _Job) -> None:
        begin(job.folder, mode=0o2770 if self._plan.group_shared else 0o700)

    def _commit(self, job: _Job, everyone: list[FileEntry | str]) -> str | None:
        problems = [said for said in everyone if isinstance(said, str)]
        if problems:
            return problems[0]
        manifest = Manifest(
            run_id=self._run_dir.name,
            step=job.folder.step,
            attempt=job.folder.attempt,
            created=time.time(),
            world_size=self._rank.world_size,
            strategy=self._plan.strategy.model_dump(),
            layout=dict(zip(AXES, self._layout.sizes, strict=True)),
            files=tuple(entry for entry in everyone if isinstance(entry, FileEntry)),
            state=job.progress.to_json(),
            metrics=job.metrics,
            versions={"torch": torch.__version__},
        )
        mode = 0o660 if self._plan.group_shared else 0o600
        commit(job.folder.path, manifest, self._run_dir / "attempts", mode=mode)
        settings = self._plan.checkpoint
        prune(job.folder.path.parent, keep_last=settings.keep_last, keep_every=settings.keep_every)
        return None
