"""Ending early, together: every rank leaves the loop at the same step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

import torch
import torch.distributed as dist


class StopVote:
    """SIGTERM in any rank ends the training of all at the next step but one.

    A rank that left alone would leave the others in a collective for ever. Each step the ranks
    start an all-reduce of one integer on the CPU and read the one of the step before, which has
    had a whole step to arrive: nothing waits, neither for the network nor for a GPU.
    """

    def __init__(self) -> None:
        self._asked = False
        self._agreed = False
        self._vote = torch.zeros(1, dtype=torch.int32)
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
        if not self._agreed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def agreed(self) -> bool:
        """Call once a step on every rank: whether all stop now. The same answer everywhere."""
        self._wait()
        if not self._agreed:
            self._vote = torch.tensor([self._asked], dtype=torch.int32)
            self._work = dist.all_reduce(self._vote, op=dist.ReduceOp.MAX, async_op=True)
        return self._agreed

    def _wait(self) -> None:
        if self._work is not None:
            self._work.wait()
            self._work = None
            self._agreed = bool(self._vote.item())
