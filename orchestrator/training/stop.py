"""Ending early, together: every rank leaves the loop at the same step."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

import torch
import torch.distributed as dist

from orchestrator.training.agent_files import AgentFiles
from orchestrator.training.process_group import Rank

_GO_ON, _SAVE, _STOP, _FAILED = 0, 1, 2, 3  # from 3 on: 3 + the rank that failed


class StopVote:
    """SIGTERM in any rank, its node's agent, or a failure in one, ends the training of all at the
    same step; and rank 0's clock has all save at the same step.

    A rank that left alone would leave the others in a collective for ever. Each step the ranks
    start an all-reduce of one integer on the CPU and read the one of the step before, which has
    had a whole step to arrive: nothing waits, neither for the network nor for a GPU. Whoever
    fails therefore says so a step ahead (see `Feed.look_ahead`), and takes part until all know.
    """

    def __init__(self, files: AgentFiles | None = None) -> None:
        self._files = files or AgentFiles()
        self._asked = False
        self._voted = False
        self._verdict = _GO_ON
        self._vote = torch.zeros(1, dtype=torch.int64)
        self._work: dist.Work | None = None

    @classmethod
    def of(cls, rank: Rank) -> StopVote:
        """One that the node's agent can ask too, where there is one."""
        return cls(AgentFiles.of(os.environ, rank.local_rank))

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
        if not self.stopping:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @property
    def asked(self) -> bool:
        """Whether this rank was sent SIGTERM."""
        return self._asked

    @property
    def by(self) -> str:
        """Who asked, as far as this rank knows, to follow the word "stopped"."""
        if self._files.reason is not None:
            return f" ({self._files.reason})"
        return " by SIGTERM" if self._asked else ""

    @property
    def stopping(self) -> bool:
        """Whether all have agreed to stop."""
        return self._verdict >= _STOP

    @property
    def saving(self) -> bool:
        """Whether all have agreed to save now, and go on."""
        return self._verdict == _SAVE

    @property
    def failed_rank(self) -> int | None:
        """Where all have agreed to stop since one failed: which (the last, where several did)."""
        return self._verdict - _FAILED if self._verdict >= _FAILED else None

    def alive(self, steps: tuple[int, int] | None = None) -> None:
        """Tell the node's agent that this rank gets on, where no step says so."""
        self._files.touch(steps)

    def agreed(
        self, *, failing: bool = False, save: bool = False, steps: tuple[int, int] | None = None
    ) -> bool:
        """Call once a step on every rank: whether all stop now. The same answer everywhere.

        `failing`: this rank can do this step and not the next. The first call waits for its own
        vote, so there it means this step already. `save`: this rank wants all to save, which
        `saving` says at the next call. `steps`: as many were done when training began, and now.
        """
        if self._voted:  # a step since the last call; the first one may compile for long
            self.alive(steps)
        self._wait()
        if not self.stopping:
            self._vote = torch.tensor([self._mine(failing=failing, save=save)])
            self._work = dist.all_reduce(self._vote, op=dist.ReduceOp.MAX, async_op=True)
            if not self._voted:
                self._voted = True
                self._wait()
        return self.stopping

    def _mine(self, *, failing: bool, save: bool) -> int:
        if failing:
            return _FAILED + dist.get_rank()
        if self._files.asked() or self._asked:
            return _STOP
        return _SAVE if save else _GO_ON

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def _wait(self) -> None:
        if self._work is not None:
            self._work.wait()
            self._work = None
            self._verdict = int(self._vote.item())
