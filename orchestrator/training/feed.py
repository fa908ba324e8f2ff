"""The batches of each step, made ready while the step before still computes."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from orchestrator.spec.training import Training
from orchestrator.training.batch import Batch, Dataset
from orchestrator.training.layout import Layout
from orchestrator.training.sampling import Shuffle, samples_of


class Feed:
    """This rank's micro batches, step by step, read in one background thread.

    Nothing is stored but the number of the next step: that is the position in the data.
    """

    def __init__(
        self, dataset: Dataset, layout: Layout, training: Training, *, first: int, steps: int
    ) -> None:
        """Feeds the steps `first` <= step < `steps`, each at most once."""
        self._dataset, self._layout, self._training = dataset, layout, training
        self._shuffle = Shuffle(len(dataset), seed=training.seed)
        self._next, self._steps = first, steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._ahead: Future[list[Batch]] | None = None
        self.waited = 0.0
        """Seconds that training has stood still for data."""

    def __enter__(self) -> Feed:
        self._read_ahead()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def take(self) -> list[Batch]:
        """The next step's micro batches. Raises what reading them raised."""
        if self._ahead is None:
            raise IndexError(f"all {self._steps} steps have been taken")
        started = time.perf_counter()
        batches = self._ahead.result()
        self.waited += time.perf_counter() - started
        self._read_ahead()
        return batches

    def _read_ahead(self) -> None:
        step, self._ahead = self._next, None
        if step < self._steps:
            self._ahead = self._thread.submit(self._read, step)
            self._next += 1

    def _read(self, step: int) -> list[Batch]:
        return [
            self._dataset.take([self._shuffle.position(sample) for sample in samples])
            for samples in (
                samples_of(
                    step,
                    micro,
                    self._layout.data_rank,
                    micro_batch=self._training.micro_batch,
                    accumulation=self._training.accumulation,
                    data_size=self._layout.data_size,
                )
                for micro in range(self._training.accumulation)
            )
        ]
