"""Waiting for the end of a run, gently: events often, the scheduler seldom."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.errors import UserError, WaitTimedOut
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed, Observer
from orchestrator.runs.state import State

LOOK_SECONDS = (0.5, 2.0)
"""First and longest pause between two looks into the run folder."""
ASK_SECONDS = (5.0, 30.0)
"""First and longest pause between two questions to a scheduler that others share."""
SETTLE_SECONDS = 180.0
"""How long an end that may be taken back (a requeue, a late record) must last to be believed."""


def wait_for(
    layout: RunLayout, *, deadline: float | None, tell: Callable[[Observed], None]
) -> Observed:
    """The run once it has ended. `deadline` by time.monotonic(); raises WaitTimedOut."""
    observer = Observer(layout)
    pause, patience = LOOK_SECONDS[0], ASK_SECONDS[0]
    ask_at = unsettled_since = 0.0
    while True:
        now = time.monotonic()
        asks = now >= ask_at
        run, troubles = observer.look(ask=asks)
        if asks:
            local = run.record.scheduler == "local"
            ask_at = now + (pause if local else patience)
            patience = min(patience * 1.5, ASK_SECONDS[1])
            tell(run)
            unsettled_since = (unsettled_since or now) if seems_over(run, troubles) else 0.0
        if run.state.final or (unsettled_since and now - unsettled_since > SETTLE_SECONDS):
            return run
        if deadline is not None and now >= deadline:
            raise WaitTimedOut(
                f"{layout.run_id} is still {run.state.words}",
                hint=f"It goes on; `ptx wait {layout.run_id}` waits longer.",
            )
        pause = min(pause * 1.5, LOOK_SECONDS[1])
        time.sleep(pause if deadline is None else min(pause, max(0.0, deadline - now)))


def seems_over(run: Observed, troubles: tuple[str, ...]) -> bool:
    """An end that is not final yet, or a run that a scheduler in good health does not know."""
    if run.state.state is not State.UNKNOWN:
        return run.state.state.ended
    if run.state.job_id is None:
        return True
    if troubles:
        return False
    from orchestrator.schedulers.registry import get

    try:
        get(run.record.scheduler).check()
    except UserError:
        return False
    return True
