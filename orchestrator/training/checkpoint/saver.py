"""Saving while training goes on: copy at the step, write and commit behind its back."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from orchestrator import __version__
from orchestrator.checkpoints.commit import AttemptOver, begin, commit, prune, remove
from orchestrator.checkpoints.manifest import FileEntry, Manifest
from orchestrator.checkpoints.names import StepFolder, step_folder
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.training.checkpoint.files import Copied, copied, write_rank_file
from orchestrator.training.checkpoint.finite import spoilt
from orchestrator.training.checkpoint.pieces import words
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.checkpoint.randomness import random_state
from orchestrator.training.engines.base import Engine
from orchestrator.training.errors import TrainingFailed
from orchestrator.training.layout import AXES, Layout
from orchestrator.training.metrics import warn
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank

_SLOWEST_WRITE = timedelta(hours=12)
"""How long a rank waits for the slowest disk. A rank that dies is noticed at once."""
_SPOILT = (
    "set training.clip_grad_norm, lower training.optimizer.lr, or look for bad samples in the "
    "data; then resume"
)


@dataclass(frozen=True)
class _Job:
    folder: StepFolder
    parts: list[Copied]
    random: Mapping[str, torch.Tensor]
    progress: Progress
    metrics: Mapping[str, float]
    best: bool
    last: bool
    started: float


@dataclass(frozen=True)
class _Problem:
    sentence: str
    over: bool = False
    """A newer attempt has begun."""
    spoilt: bool = False
    """What was to be saved is nothing to go on from."""


class Saver:
    """Writes checkpoints of an engine. All ranks make one and call its methods together.

    The exchange about a save runs in the writing thread, over a process group of its own: on the
    training's group it could meet a collective of the loop.
    """

    def __init__(
        self, engine: Engine, plan: TrainingPlan, rank: Rank, layout: Layout, run_dir: Path
    ) -> None:
        self._engine, self._plan, self._rank, self._layout = engine, plan, rank, layout
        self._run = RunLayout(run_dir)
        self._group = dist.new_group(backend="gloo", timeout=_SLOWEST_WRITE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: tuple[StepFolder, Future[_Problem | None]] | None = None
        self._buffers: dict[str, torch.Tensor] = {}
        self._missed: tuple[int, int, str] | None = None
        """Rank 0's: first and last step of those that could not be saved since the last one that
        was, and why."""
        self.stalled = 0.0
        """Seconds that training has stood still for saving."""
        self.newest: StepFolder | None = None
        """The last one that was committed, or from which training went on."""
        self.damaged: set[StepFolder] = set()
        """Those that this start has passed over."""
        self.best: int | None = None
        """Rank 0's: step of the committed one that is never pruned."""

    def save(
        self,
        progress: Progress,
        metrics: Mapping[str, float] | None = None,
        *,
        best: bool = False,
        last: bool = False,
    ) -> str | None:
        """Begin a save of the state after `progress.step` steps.

        Waits for the one before, whose problem it returns, if it had one: see `finish`. `best`: it
        is not to be pruned until another one is. `last`: whoever calls acts on its problem, of
        which rank 0 else warns as soon as it is there.
        """
        if self._rank.device.type == "cuda":
            torch.cuda.synchronize(self._rank.device)  # steps under way are no time lost
        problem = self.finish()
        started = time.perf_counter()
        parts = copied(self._engine.pieces(), self._buffers)
        self._buffers = {part.key: part.tensor for part in parts}
        job = _Job(
            step_folder(self._run.checkpoints, progress.step, self._plan.attempt),
            parts,
            random_state(self._rank.device),
            replace(progress, engine=self._engine.scalars()),
            metrics or {},
            best,
            last,
            started,
        )
        self._running = job.folder, self._thread.submit(self._write, job)
        self.stalled += time.perf_counter() - started
        return problem

    def finish(self) -> str | None:
        """Wait for the save that runs; None where there is none or it was committed, else why
        it was not, in one sentence that is the same on all ranks. Raises AttemptOver where a
        newer attempt has begun, and TrainingFailed where the parameters were not finite."""
        if self._running is None:
            return None
        started = time.perf_counter()
        (folder, running), self._running = self._running, None
        problem = running.result()
        self.stalled += time.perf_counter() - started
        if problem is None:
            self.newest = folder
            return None
        if problem.over:
            raise AttemptOver(problem.sentence)
        if problem.spoilt:
            raise TrainingFailed(f"{problem.sentence}{self.way_back()}", hint=_SPOILT)
        return problem.sentence

    def way_back(self) -> str:
        """Where a training that has failed can go on from, as the end of a sentence."""
        if self.newest is None:
            return "; there is no checkpoint"
        return f"; the newest checkpoint is {self.newest.path}"

    def last_step(self) -> int | None:
        """Of the newest save, committed or under way."""
        folder = self._running[0] if self._running else self.newest
        return folder.step if folder else None

    def close(self) -> None:
        """After `finish`, or where training failed."""
        self._thread.shutdown()

    def _write(self, job: _Job) -> _Problem | None:
        problem = self._agreed(lambda: self._begin(job.folder))
        if problem is None:
            mine = self._written(job)
            main = self._rank.is_main
            everyone: list[Any] | None = [None] * self._rank.world_size if main else None
            dist.gather_object(mine, everyone, dst=0, group=self._group)
            problem = self._agreed(lambda: self._commit(job, everyone or []))
        if self._rank.is_main:
            self._tidy(job, problem)
        return problem

    def _written(self, job: _Job) -> FileEntry | _Problem:
        rank = self._rank.rank
        if key := spoilt(job.parts):
            words_for = f"{words(key)} is not finite after step {job.folder.step} (rank {rank})"
            return _Problem(f"{words_for}, so no checkpoint of it was written", spoilt=True)
        try:
            return write_rank_file(job.folder.path, rank, job.parts, job.random, self._file_mode)
        except OSError as error:
            why = error.strerror or error
            return _Problem(f"rank {rank}: cannot write to {job.folder.path}: {why}")

    def _agreed(self, act: Callable[[], _Problem | None]) -> _Problem | None:
        """Rank 0 acts; all get to know whether it went well."""
        said: list[_Problem | None] = [None]
        if self._rank.is_main:
            try:
                said = [act()]
            except AttemptOver as error:
                said = [_Problem(error.message, over=True)]
            except (OSError, UserError) as error:
                said = [_Problem(str(error))]
        dist.broadcast_object_list(said, src=0, group=self._group)
        return said[0]

    def _begin(self, folder: StepFolder) -> None:
        if folder.committed:
            # Whoever comes by here again has not gone on from it: it could not be loaded.
            remove(folder)
        self.damaged.discard(folder)
        begin(folder, mode=0o2770 if self._plan.group_shared else 0o700)

    @property
    def _file_mode(self) -> int:
        return 0o660 if self._plan.group_shared else 0o600

    def _commit(self, job: _Job, everyone: list[FileEntry | _Problem]) -> _Problem | None:
        problems = [said for said in everyone if isinstance(said, _Problem)]
        if problems:
            return max(problems, key=lambda problem: problem.spoilt)
        state = job.progress.to_json() | {"save_seconds": time.perf_counter() - job.started}
        manifest = Manifest(
            run_id=self._run.run_id,
            step=job.folder.step,
            attempt=job.folder.attempt,
            created=time.time(),
            world_size=self._rank.world_size,
            strategy=self._plan.strategy.model_dump(),
            layout=dict(zip(AXES, self._layout.sizes, strict=True)),
            files=tuple(entry for entry in everyone if isinstance(entry, FileEntry)),
            state=state,
            metrics=job.metrics,
            versions=_versions(self._plan),
            spec_sha256=_hash_of(self._run.bundle / "spec.yaml"),
        )
        attempts = self._run.attempt(0).parent
        commit(job.folder.path, manifest, attempts, mode=self._file_mode)
        return None

    def _tidy(self, job: _Job, problem: _Problem | None) -> None:
        """Rank 0's: make room. What fails here has no bearing on what was committed."""
        if problem is not None:
            with suppress(OSError):
                remove(job.folder)  # half a checkpoint would keep a full disk full
            if not (job.last or problem.over or problem.spoilt):
                warn(
                    f"the checkpoint of step {job.folder.step} was not written: "
                    f"{problem.sentence}; the one before is kept, and training goes on"
                )
                first = self._missed[0] if self._missed else job.folder.step
                self._missed = first, job.folder.step, problem.sentence
            return
        if self._missed:
            # What was said of them at the time went into a log on the same full disk.
            first, last, sentence = self._missed
            steps = f"step {first}" if first == last else f"steps {first} to {last}"
            warn(
                f"checkpoints are written again: that of step {job.folder.step} is, and of {steps} "
                f"there is none: {sentence}"
            )
            self._missed = None
        if job.best:
            self.best = job.folder.step
        settings = self._plan.checkpoint
        try:
            prune(
                job.folder.path.parent,
                keep_last=settings.keep_last,
                keep_every=settings.keep_every,
                best=self.best,
                resume_from=self._plan.history,
                newest=job.folder,
                damaged=self.damaged,
            )
        except OSError as error:
            warn(f"old checkpoints cannot be deleted: {error}")


def _versions(plan: TrainingPlan) -> dict[str, str]:
    """Of what made the tensors what they are."""
    found = {
        "ptx": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    if plan.strategy.name == "zero":
        import deepspeed  # as the engine has, which is why nobody else pays for it

        found["deepspeed"] = str(deepspeed.__version__)
    return found


def _hash_of(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
