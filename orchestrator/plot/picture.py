"""What is drawn: runs with their curves, ready for the terminal, a page or JSON."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.metrics.series import Series, Start, read_series
from orchestrator.metrics.thinning import POINTS, Curve
from orchestrator.plot.usage import Usage, read_usage
from orchestrator.runs.attempts import history
from orchestrator.runs.observe import Observed

MARKS = string.ascii_uppercase + string.ascii_lowercase
MOST_RUNS = 50
_ALL_POINTS = 40_000
"""Of all curves together: a page of this many stays below 2 MB."""
_FEWEST_POINTS = 40


@dataclass(frozen=True)
class Drawn:
    """One run."""

    run_id: str
    name: str
    state: str
    mark: str
    """A letter that stands for the run where colours cannot."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    starts: tuple[Start, ...] = ()
    ends: Mapping[int, str] = field(default_factory=dict)
    """Attempt -> how it ended, where that is known."""
    last: Mapping[str, float] = field(default_factory=dict)
    not_finite: Mapping[str, int] = field(default_factory=dict)
    """As `Series` has it: of these keys `last` is an old value."""
    steps: int | None = None
    nodes_read: int = 0
    nodes: int = 0
    troubles: tuple[str, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self.curves)

    @property
    def began(self) -> float:
        """Where its time begins, in epoch seconds."""
        firsts = [start.t for start in self.starts[:1]] or [
            curve.times[0] for curve in self.curves.values()
        ]
        return min(firsts, default=0.0)

    @property
    def last_step(self) -> float | None:
        steps = [curve.steps[-1] for curve in self.curves.values() if curve]
        return max((step for step in steps if step is not None), default=None)

    @property
    def seconds(self) -> float:
        """From its first step to its last report."""
        ends = [curve.times[-1] for key, curve in self.curves.items() if key not in _SAMPLED]
        return max(0.0, max(ends, default=self.began) - self.began)


_SAMPLED = frozenset({"gpu_util", "gpu_memory", "cpu_util"})


def draw(runs: Sequence[Observed]) -> tuple[Drawn, ...]:
    """Read what `runs` left, at most `MOST_RUNS` of them, thinned to what one page can hold."""
    points = max(_FEWEST_POINTS, min(POINTS, _ALL_POINTS // (2 * 10 * max(1, len(runs)))))
    drawn = []
    for mark, run in zip(MARKS, runs, strict=False):
        series = read_series(run.layout, points=points)
        usage = read_usage(run.layout, series, points=points)
        ends = {one.number: one.end_class for one in history(run.events) if one.end_class}
        drawn.append(_drawn(run, mark, series, usage, ends))
    return tuple(drawn)


def _drawn(
    run: Observed, mark: str, series: Series, usage: Usage, ends: Mapping[int, str]
) -> Drawn:
    return Drawn(
        run_id=run.record.run_id,
        name=run.record.name,
        state=run.state.state.value,
        mark=mark,
        curves={**series.curves, **usage.curves},
        starts=series.starts,
        ends=ends,
        last=series.last,
        not_finite=series.not_finite,
        steps=series.steps,
        nodes_read=usage.nodes_read,
        nodes=usage.nodes,
        troubles=series.troubles,
    )
