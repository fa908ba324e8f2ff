"""Ending early, together: every rank leaves the loop at the same step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

import torch
import torch.distributed as dist

_GO_ON, _FAILED = 0, 2  # 1: SIGTERM; from 2 on: 2 + the rank that failed


class StopVote:
    """SIGTERM in any rank, or a failure in one, ends the training of all at the same step.

    A rank that left alone would leave the others in a collective for ever. Each step the ranks
    start an all-reduce of one integer on the CPU and read the one of the step before, which has
    had a whole step to arrive: nothing waits, neither for the network nor for a GPU. Whoever
    fails therefore says so a step ahead (see `Feed.look_ahead`), and takes part until all know.
    """

    def __init__(self) -> None:
        self._asked = False
        self._voted = False
        self._verdict = _GO_ON
        self._vote = torch.zeros(1, dtype=torch.int64)
        self._work: dist.Work | None = None

    def __enter__(self) -> StopVote:
        """Take over SIGTERM, and let it through where a parent had it blocked.

        Not earlier: before the first step, as while waiting for a rank that never comes, nothing
        is lost by ending at once.
        """
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take in the last vote, which would otherwise be in flight when the group ends.

        After a stop SIGTERM stays harmless: the launcher sends it once more, to the ranks that
        have not quite ended when the first has.
        """
        if error is None:
            self._wait()
        if not self._verdict:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @property
    def asked(self) -> bool:
        """Whether this rank was sent SIGTERM."""
        return self._asked

    @property
    def failed_rank(self) -> int | None:
        """Where all have agreed to stop since one failed: which (the last, where several did)."""
        return self._verdict - _FAILED if self._verdict >= _FAILED else None

    def agreed(self, *, failing: bool = False) -> bool:
        """Call once a step on every rank: whether all stop now. The same answer everywhere.

        `failing`: this rank can do this step and not the next. The first call waits for its own
        vote, so there it means this step already.
        """
        self._wait()
        if not self._verdict:
            mine = _FAILED + dist.get_rank() if failing else int(self._asked)
            self._vote = torch.tensor([mine])
            self._work = dist.all_reduce(self._vote, op=dist.ReduceOp.MAX, async_op=True)
            if not self._voted:
                self._voted = True
                self._wait()
        return self._verdict != _GO_ON

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def _wait(self) -> None:
        if self._work is not None:
            self._work.wait()
            self._work = None
            self._verdict = int(self._vote.item())
