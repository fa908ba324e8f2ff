"""The batches of each step, made ready while the steps before still compute."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from orchestrator.spec.training import Training
from orchestrator.training.batch import Batch, Dataset, EpochDataset
from orchestrator.training.layout import Layout
from orchestrator.training.memory.shortage import is_out_of_memory
from orchestrator.training.sampling import Shuffle, samples_of

AHEAD = 2
"""Steps in hand: this one, and the next, whose failure the ranks tell each other meanwhile."""


class Feed:
    """This rank's micro batches, step by step, read in one background thread.

    Nothing is stored but the number of the next step's first sample: that is the position in the
    data, also where the steps before took more samples or fewer.
    """

    def __init__(
        self, dataset: Dataset, layout: Layout, training: Training, *, steps: int, samples: int = 0
    ) -> None:
        """Feeds `steps` steps, each at most once, after the first `samples` samples."""
        self._dataset, self._layout, self._training = dataset, layout, training
        self._shuffle = Shuffle(len(dataset), seed=training.seed)
        self._next, self._steps, self._samples = 0, steps, samples
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._ahead: deque[Future[list[Batch]]] = deque()
        self._seen = 0
        self.failure: BaseException | None = None
        """What reading a step in sight has raised; no step from there on is good."""
        self.waited = 0.0
        """Seconds that training has stood still for data."""
        self.reading = 0.0
        """Seconds that reading has taken, beside training: as long as a step, it holds steps up."""
        self.skipped = 0
        """Samples that could not be read, of the steps taken."""

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

    def look_ahead(self) -> list[int]:
        """Wait until this step and the next are read. The weights of those newly in sight, 0 for
        one that cannot be read; `failure` then says why.

        Raises at once where memory ran out: that is not for the others to agree on.
        """
        started = time.perf_counter()
        weights = [self._weight(future) for future in list(self._ahead)[self._seen :]]
        self.waited += time.perf_counter() - started
        self._seen = len(self._ahead)
        return weights

    def take(self) -> list[Batch]:
        """This step's micro batches. Raises what reading them raised."""
        if not self._ahead:
            raise IndexError(f"all {self._steps} steps have been taken")
        batches = self._ahead.popleft().result()
        self._seen = max(0, self._seen - 1)
        self.skipped += sum(batch.skipped for batch in batches)
        self._read_ahead()
        return batches

    def _weight(self, future: Future[list[Batch]]) -> int:
        error = None if self.failure else future.exception()
        if error is not None and is_out_of_memory(error):
            raise error
        self.failure = self.failure or error
        return 0 if self.failure else sum(batch.weight for batch in future.result())

    def _read_ahead(self) -> None:
        while len(self._ahead) < AHEAD and self._next < self._steps:
            self._ahead.append(self._thread.submit(self._read, self._next))
            self._next += 1

    def _read(self, step: int) -> list[Batch]:
        started = time.perf_counter()
        batches = self._batches(step)
        self.reading += time.perf_counter() - started
        return batches

    def _batches(self, step: int) -> list[Batch]:
        return [
            self._take(samples)
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

    def _take(self, samples: range) -> Batch:
        samples = range(samples.start + self._samples, samples.stop + self._samples)
        indices = [self._shuffle.position(sample) for sample in samples]
        if isinstance(self._dataset, EpochDataset):
            epochs = [sample // self._shuffle.size for sample in samples]
            return self._dataset.take_in_epochs(indices, epochs)
        return self._dataset.take(indices)
