"""A run's state, kept up to date beside its logs."""

from __future__ import annotations

from threading import Thread

from orchestrator.runs.layout import RunLayout
from orchestrator.runs.observe import Observed
from orchestrator.runs.wait import wait_for


class Watch:
    """Waits for the end of a run in a thread: a scheduler may take seconds to answer.

    The thread is a daemon, so it never keeps the command from ending.
    """

    def __init__(self, layout: RunLayout) -> None:
        self.latest: Observed | None = None
        """As of the last look; None before the first."""
        self._layout = layout
        self._end: Observed | None = None
        self._error: Exception | None = None
        Thread(target=self._wait, name="watch", daemon=True).start()

    def end(self) -> Observed | None:
        """The run once it has ended, else None. Raises what looking at it raised."""
        if self._error is not None:
            raise self._error
        return self._end

    def _wait(self) -> None:
        try:
            self.latest = self._end = wait_for(self._layout, deadline=None, tell=self._note)
        except Exception as error:  # raised again by end(), in the thread of the caller
            self._error = error

    def _note(self, observed: Observed) -> None:
        self.latest = observed
