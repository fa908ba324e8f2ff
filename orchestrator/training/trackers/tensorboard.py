"""Metrics as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from orchestrator.training.plan import TrainingPlan
from orchestrator.training.trackers.base import Tracker


class TensorBoard(Tracker):
    """Writes `<run folder>/tensorboard/<attempt>`, so that attempts show as runs side by side."""

    def __init__(self, plan: TrainingPlan, warn: Callable[[str], None]) -> None:
        """Without a run folder the files go below the current one."""
        folder = (plan.run_dir or Path()) / "tensorboard" / f"{plan.attempt:03d}"
        self._warn = warn
        self._writer: SummaryWriter | None = SummaryWriter(str(folder))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        try:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:  # of the thread that writes, handed on here
            self._warn(f"TensorBoard's files cannot be written any more: {error}")
            self._writer = None

    def close(self, *, failed: bool) -> None:  # noqa: ARG002 - it has no word for it
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._warn(f"TensorBoard's last numbers are not written: {error}")
