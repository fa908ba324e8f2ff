"""What rank 0 reports: one JSON line and one printed line every few steps."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import torch

from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.trackers.base import Tracker
from orchestrator.training.trackers.registry import open_trackers, require_packages


@dataclass(frozen=True)
class Metrics:
    """One report. Loss is in nats a target, the mean over all ranks and steps since the last."""

    step: int
    """Optimizer steps done."""
    steps: int
    epoch: float
    """Passes over the training data so far."""
    loss: float
    lr: float
    grad_norm: float | None
    """L2 norm before clipping at `step`; None where nothing is clipped."""
    tokens_per_s: float | None
    """Over all ranks, since the last report; None where samples are not made of tokens."""
    samples_per_s: float
    memory_bytes: int
    """Peak of rank 0 so far: allocated on its GPU, or resident on CPU."""
    memory_reserved_bytes: int | None
    """Peak that PyTorch has taken from rank 0's GPU, used or not; None on CPU."""
    data_share: float
    """Share of the time since the last report that the ranks, on average, waited for data."""
    samples_skipped: int
    """So far, over all ranks: could not be read."""
    steps_skipped: int
    """So far: fp16 gradients overflowed, and the parameters stayed as they were."""
    eval_loss: float | None
    """Held-out loss after `step`, in nats a target; None where none was asked for at this step."""
    mfu: float | None
    """tokens_per_s x flops_per_token / (peak_flops x ranks), from 0 to 1."""
    mfu_reason: str | None
    """Why there is no mfu."""
    flops_per_token: float | None
    flops_formula: str | None
    peak_flops: float | None
    """A second, of one device."""
    peak_name: str | None
    eval_accuracy: float | None = None
    """With eval_loss, for classifiers: the share of held-out samples whose class was found."""
    train_accuracy: float | None = None
    """The same of samples that were trained on."""
    checkpoint_stall: float = 0.0
    """Share of the time since the last report that training stood still for checkpoints."""
    start_step: int = 0
    """Of `step`, the steps that were done when this attempt began."""
    seconds: float = 0.0
    """Since the last report, evaluations left out."""
    slow_ranks: tuple[tuple[int, float, float], ...] | None = None
    """The slowest ranks, at most 8, the slowest first: rank, its own seconds a step, and of them
    those for data. None for a `rank_seconds_reason`."""
    rank_seconds_median: float | None = None
    """Of all ranks' own seconds a step; of two ranks the faster one's."""
    rank_seconds_reason: str | None = None
    """Why nobody knows how long each rank needs by itself."""
    data_wait_longest: float = 0.0
    """Seconds a step that one rank waited for data, of all ranks the longest: the others wait for
    that rank then, and their own data comes in meanwhile."""
    data_read_median: float = 0.0
    """Seconds in which a rank reads the data of a step, beside training; the median of all."""

    def line(self) -> str:
        """For the log: what a person looks at, on one short line."""
        tokens, samples = self.tokens_per_s, self.samples_per_s
        speed = f"{samples:,.0f} samples/s" if tokens is None else f"{tokens:,.0f} tokens/s"
        parts = [f"step {self.step}/{self.steps} loss {self.loss:.4f} lr {self.lr:.1e} {speed}"]
        if self.mfu is not None:
            parts.append(f"mfu {self.mfu:.1%}")
        if self.samples_skipped:
            parts.append(f"skipped {self.samples_skipped:,}")
        if self.eval_loss is not None:
            parts.append(f"held-out {self.eval_loss:.4f}")
        if self.eval_accuracy is not None:
            parts.append(f"accuracy {self.eval_accuracy:.1%}")
        if self.train_accuracy is not None:
            parts.append(f"on training samples {self.train_accuracy:.1%}")
        return " ".join(parts)


class MetricsWriter:
    """Prints each report, appends it to metrics.jsonl where there is a run folder, and hands it to
    the trackers.

    One write a record, so a reader sees whole lines or, for a moment, one torn last line.
    Ranks other than 0 have no writer.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        group_shared: bool = False,
        clock: Callable[[], float] = time.time,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """`path`'s folder is made where it is missing. Files are 0600, or 0660 for a group."""
        self._clock = clock
        self._trackers = trackers
        self._complained = False
        self._file: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o660 if group_shared else 0o600
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
            os.fchmod(self._file, mode)  # the umask may have taken the group's part away

    @classmethod
    def of(cls, plan: TrainingPlan, rank: Rank) -> AbstractContextManager[MetricsWriter | None]:
        """Rank 0's writer, and None for the others. All ranks call it.

        Raises NotSupported, on all of them, where a tracker's package is missing.
        """
        require_packages(plan.logging)
        if not rank.is_main:
            return nullcontext()
        trackers = open_trackers(plan, warn)
        return cls(plan.metrics_path, group_shared=plan.group_shared, trackers=trackers)

    def write(self, metrics: Metrics) -> None:
        """A disk that is full or gone ends no training: it is said once, and tried again."""
        say(metrics.line())
        record = {key: _json(value) for key, value in asdict(metrics).items()}
        if self._file is not None:
            line = {"v": 1, "t": self._clock(), **record}
            self._append(self._file, json.dumps(line, allow_nan=False).encode() + b"\n")
        for tracker in self._trackers:
            tracker.log(metrics.step, _numbers(record))

    def _append(self, file: int, line: bytes) -> None:
        try:
            os.write(file, line)
        except OSError as error:
            if not self._complained:
                warn(f"metrics.jsonl cannot be written: {error.strerror}; training goes on")
            self._complained = True

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for tracker in self._trackers:
            tracker.close(failed=error is not None)
        if self._file is not None:
            os.close(self._file)


def _json(value: object) -> object:
    """JSON has no infinity and no NaN: the norm of a step that fp16 has skipped is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(record: dict[str, object]) -> dict[str, float]:
    return {key: value for key, value in record.items() if isinstance(value, int | float)}


def say(text: str) -> None:
    """Print a line now: whoever follows the log must not wait for a buffer to fill."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """The same on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory so far: allocated by PyTorch on a GPU, resident set on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_reserved_bytes(device: torch.device) -> int | None:
    """Largest memory that PyTorch held on a GPU, in use or kept for later; None on CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
