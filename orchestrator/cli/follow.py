"""What `ptx submit --follow` shows: rank 0's output, everybody's stderr, and the progress."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field

from orchestrator.cli.bottom_line import BottomLine
from orchestrator.cli.errors import tell
from orchestrator.cli.last_words import judged, last_words
from orchestrator.cli.output import coloured, duration, next_commands, note, paint
from orchestrator.cli.progress import Style, progress_bar, progress_line, rate
from orchestrator.logs.follow import Follower
from orchestrator.logs.line import MARK, Entry
from orchestrator.logs.position import START, Position
from orchestrator.logs.seek import offset_of_last
from orchestrator.logs.select import RankLog, Selection
from orchestrator.logs.text import TextLines
from orchestrator.logs.watch import Watch
from orchestrator.metrics.tail import MetricsTail, Progress
from orchestrator.runs.attempts import history
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed
from orchestrator.runs.state import State

INTERRUPTED, CLOSED_PIPE = 130, 141
"""What a shell shows for a program that Ctrl-C, or a closed pipe, ended."""
PLAIN_SECONDS = 5.0
"""Between two lines of progress where no line can be redrawn."""


def follow(layout: RunLayout, first_attempt: int = 0) -> int:
    """Show a run, from that attempt on, until it has ended; 0 if it completed, 1 if not, 130 for
    Ctrl-C.

    Ctrl-C ends the showing, not the run. Raises UserError where the run cannot be read.
    """
    line = BottomLine()
    try:
        return _tell_end(*_watch_run(layout, line, first_attempt))
    except KeyboardInterrupt:
        line.clear()
        note(f"\n{layout.run_id} goes on without you.")
        run = layout.run_id
        next_commands(f"ptx logs {run} --follow", f"ptx status {run}", f"ptx cancel {run}")
        return INTERRUPTED
    except BrokenPipeError:  # as of `| head`: the run goes on
        return CLOSED_PIPE
    finally:
        line.clear()


def _watch_run(
    layout: RunLayout, line: BottomLine, first_attempt: int
) -> tuple[Observed, MetricsTail]:
    watch, metrics = Watch(layout), MetricsTail(layout)

    def start(log: RankLog) -> Position:
        return START if log.attempt >= first_attempt else offset_of_last(log.path, 0)

    follower = Follower(layout, Selection(), start=start)
    lines = TextLines(follower.logs, colour=coloured(sys.stdout))
    view = _View(line, metrics)
    for batches in (follower.history(), follower.follow(watch.end)):
        for entries in batches:
            chosen = [entry for entry in entries if _is_shown(follower, entry)]
            if chosen:
                line.clear()
                sys.stdout.write(lines.render(chosen))
                sys.stdout.flush()
            view.update(watch.latest)
    line.clear()
    metrics.look()
    end = watch.end()
    if end is None:
        raise AssertionError("a follower ends only when its run has")
    return end, metrics


def _is_shown(follower: Follower, entry: Entry) -> bool:
    """All of rank 0; of the others what they complain about."""
    return follower.logs[entry[1]].rank == 0 or entry[2][MARK] in "eE"


@dataclass
class _View:
    """The bottom line, or plain lines now and then where there is none."""

    line: BottomLine
    metrics: MetricsTail
    told: str = ""
    next_plain: float = 0.0
    last_step: int | None = None
    style: Style = field(init=False)

    def __post_init__(self) -> None:
        self.style = Style(colour=coloured(sys.stderr), unicode=self.line.unicode)

    def update(self, run: Observed | None) -> None:
        progress, now = self.metrics.look(), time.time()
        if self.line.live:
            self.line.show(progress_bar(head(run, now), progress, now, self.line.width, self.style))
        else:
            self._tell_state(run, progress)
            self._tell_progress(progress, now)

    def _tell_state(self, run: Observed | None, progress: Progress) -> None:
        """What it waits for; once there is progress, that says more."""
        if run is not None and not run.state.final and progress.step is None:
            words = f"{run.record.run_id} {run.state.state.value}: {run.state.reason}"
            if words != self.told:
                note(words)
                self.told = words

    def _tell_progress(self, progress: Progress, now: float) -> None:
        if progress.step is not None and progress.step != self.last_step and now > self.next_plain:
            note(progress_line(progress, now))
            self.next_plain, self.last_step = now + PLAIN_SECONDS, progress.step


def head(run: Observed | None, now: float) -> str:
    """What the run is doing, and since when."""
    if run is None:
        return "starting"
    state = run.state
    since = state.started if state.state is State.RUNNING else run.record.created
    age = duration(now - (since or run.record.created))
    if state.state is State.RUNNING:
        again = f" (attempt {state.attempt})" if state.attempt else ""
        ending = "" if state.reason.startswith(("Running", "Starting")) else f": {state.reason}"
        return f"running{again}{ending} {age}"
    return f"{state.state.value}: {state.reason.rstrip('.')} {age}"


def _tell_end(run: Observed, metrics: MetricsTail) -> int:
    run_id, state, found = run.record.run_id, run.state, judged(run)
    completed = state.state is State.COMPLETED
    words = f"{run_id} {state.state.value}{_took(run)}: {found.sentence}"
    if completed:
        note(words.replace("completed", paint("completed", "green", stream=sys.stderr), 1))
    else:
        if block := last_words(run, found):
            note(block)
        tell(words, None)
    _tell_result(metrics)
    note(f"files: {run.layout.root}")
    rank = "" if found.rank is None else f" --rank {found.rank}"
    first = f"ptx status {run_id}" if completed else f"ptx why {run_id}"
    next_commands(first, f"ptx logs {run_id}{rank}")
    return 0 if completed else 1


def _took(run: Observed) -> str:
    """All attempts together, what lay between them too; of several also the last one's time."""
    started, ended = run.state.started, run.state.ended
    if started is None or ended is None:
        return ""
    first = min((attempt.started for attempt in history(run.events)), default=started)
    whole = f" after {duration(ended - min(first, started))}"
    several = len(run.state.attempts) > 1
    last = f" (attempt {run.state.attempt}: {duration(ended - started)})" if several else ""
    return whole + last


def _tell_result(metrics: MetricsTail) -> None:
    """The way the loss went, and how fast."""
    progress = metrics.progress
    if progress.step is None:
        return
    steps = f" of {progress.steps}" if progress.steps else ""
    parts = [f"{progress.step}{steps} steps"]
    if progress.loss is not None and not math.isfinite(progress.loss):
        parts.append("loss not finite")
    elif progress.loss is not None:
        first = f" (first {progress.losses[0]:.4g})" if len(progress.losses) > 1 else ""
        parts.append(f"loss {progress.loss:.4g}{first}")
    if metrics.mean_tokens_per_s is not None:
        parts.append(f"{rate(metrics.mean_tokens_per_s)} tokens/s")
    note(", ".join(parts))
