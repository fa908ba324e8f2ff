"""Which step a run stood at when. Pure."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

from orchestrator.metrics.series import Series


class Clock:
    """From times to steps, over the steps that were kept."""

    def __init__(self, series: Series) -> None:
        starts = list(series.starts)
        # A later start from an earlier step has undone all of those that began beyond it.
        live = [
            start
            for number, start in enumerate(starts)
            if all(later.step > start.step for later in starts[number + 1 :])
        ]
        points = [(step, t) for step, t in series.clock if step is not None]
        ends = [start.step for start in live[1:]] + [float("inf")]
        self._spans = [
            [(start.t, start.step), *((t, step) for step, t in points if start.step < step <= end)]
            for start, end in zip(live, ends, strict=False)  # without starts there is one end
        ]

    def at(self, t: float) -> float | None:
        """The step, with a fraction; None while the run was not training, or in vain."""
        for span in self._spans:
            if span[0][0] <= t <= span[-1][0]:
                return _between(span, t)
        return None


def _between(span: list[tuple[float, float]], t: float) -> float:
    if any(later[0] < earlier[0] for earlier, later in pairwise(span)):
        span = sorted(span)  # the clock was set back while it trained
    index = bisect_left(span, (t, 0.0))
    if index == 0 or index == len(span):
        return span[min(index, len(span) - 1)][1]
    (t0, step0), (t1, step1) = span[index - 1], span[index]
    return step1 if t1 <= t0 else step0 + (step1 - step0) * (t - t0) / (t1 - t0)
