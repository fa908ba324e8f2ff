"""What rank 0 reports: one JSON line and one printed line every few steps."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import torch

from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank


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

    def line(self) -> str:
        tokens, samples = self.tokens_per_s, self.samples_per_s
        speed = f"{samples:,.0f} samples/s" if tokens is None else f"{tokens:,.0f} tokens/s"
        return f"step {self.step}/{self.steps} loss {self.loss:.4f} lr {self.lr:.1e} {speed}"


class MetricsWriter:
    """Prints each report, and appends it to metrics.jsonl where there is a run folder.

    One write a record, so a reader sees whole lines or, for a moment, one torn last line.
    Ranks other than 0 have no writer.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        group_shared: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`path`'s folder is made where it is missing. Files are 0600, or 0660 for a group."""
        self._clock = clock
        self._file: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o660 if group_shared else 0o600
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)
            os.fchmod(self._file, mode)  # the umask may have taken the group's part away

    @classmethod
    def of(cls, plan: TrainingPlan, rank: Rank) -> AbstractContextManager[MetricsWriter | None]:
        """Rank 0's writer, and None for the others."""
        if not rank.is_main:
            return nullcontext()
        return cls(plan.metrics_path, group_shared=plan.group_shared)

    def write(self, metrics: Metrics) -> None:
        """Raises OSError where the run folder's disk is full or gone."""
        say(metrics.line())
        if self._file is not None:
            record = {"v": 1, "t": self._clock(), **asdict(metrics)}
            os.write(self._file, json.dumps(record).encode() + b"\n")

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            os.close(self._file)


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
