"""A micro batch that fits: looked for before training, and halved when memory runs out in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import torch
import torch.distributed as dist

from orchestrator.training.memory.known import Known, known_from
from orchestrator.training.memory.record import write_record
from orchestrator.training.memory.restart import Restart
from orchestrator.training.memory.search import halved, next_candidate
from orchestrator.training.memory.shortage import is_out_of_memory
from orchestrator.training.metrics import say, warn
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.stop import StopVote

Trial = Callable[[], int]
"""Trains for as long as memory still grows; the most bytes that this rank has taken."""
_WAYS_OUT = (
    "try training.activation_checkpointing, strategy fsdp or zero with offload, or shorter samples"
)


@dataclass(frozen=True)
class Found:
    """A micro batch that an earlier attempt has found to fit."""

    micro_batch: int
    samples_a_rank: int
    """Of a step: what the micro batch divides."""


class Fitting:
    """Around training. Memory that runs out inside, in any rank, makes all start anew with a
    smaller micro batch and as many samples a step, or end with one sentence.

    Training then begins again, or goes on from its newest checkpoint: the samples of a step, and
    so the losses but for rounding, are the same.
    """

    def __init__(self, plan: TrainingPlan, rank: Rank, stop: StopVote) -> None:
        """All ranks make and enter one together."""
        self._plan, self._rank, self._stop = plan, rank, stop
        self._training = plan.training
        self._samples = self._training.micro_batch * self._training.accumulation
        self._known: Known = known_from(os.environ)
        self._restart: Restart | None = None

    @property
    def _searching(self) -> bool:
        return self._training.find_micro_batch and not self._known.searched

    @property
    def anew(self) -> bool:
        """Whether these ranks have started in place of others of the same attempt."""
        return self._known.round > 0

    @property
    def micro_batch(self) -> int | None:
        """The one that was found to fit; None where the spec's own is used."""
        return self._known.micro_batch

    def __enter__(self) -> Fitting:
        self._restart = Restart(self._rank, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._restart is None:
            return
        if error is not None:
            self._restart.wait_if_leaving()
            if is_out_of_memory(error):
                self._out_of_memory(self._restart)
        self._restart.close()

    def adopt(self, found: Found | None) -> None:
        """Train with what an earlier attempt has found, which all ranks know, where it still
        divides the samples of a step: nothing need be found out again, and losses are the same."""
        if self._restart is None:
            raise RuntimeError("adopt is for the inside of the context")
        if found is None or self.anew or found.samples_a_rank != self._samples:
            return
        known = self._known.next(found.micro_batch, searched=True)
        if found.micro_batch == self._training.micro_batch:
            self._known = known
            return
        if not self._rank.is_main:
            self._restart.wait()
        say(f"micro batch {found.micro_batch}, as before: all ranks start anew with it")
        self._restart.begin(known.text())

    def search(self, trial: Trial) -> None:
        """With training.find_micro_batch, and while the largest micro batch that fits is not
        known, try this one and start anew; else say which one is used, where that was found out.
        """
        if self._restart is None:
            raise RuntimeError("search is for the inside of the context")
        if not self._searching:
            self._say_which()
            return
        peak = torch.tensor([trial()])
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        if not self._rank.is_main:
            self._restart.wait()
        mine = self._training.micro_batch
        fits = self._known.fits | {mine: int(peak.item())}
        say(f"micro batch {mine} fits in {int(peak.item()) / 2**30:.2f} GiB")
        self._restart.begin(self._after(fits, self._known.fails).text())

    def _out_of_memory(self, restart: Restart) -> None:
        mine = self._training.micro_batch
        where = f"rank {self._rank.rank}: memory ran out with micro batch {mine}"
        fails = (*self._known.fails, mine)
        if self._searching:
            after = self._after(self._known.fits, fails)
        elif self._training.out_of_memory == "fail":
            restart.end(f"training-failed: {where} (set training.out_of_memory: halve)")
        else:
            smaller = halved(self._samples, mine)
            after = self._known.next(smaller or 0, fails=fails)
        if not after.micro_batch:
            restart.end(f"training-failed: {where}, the smallest ({_WAYS_OUT})")
        warn(f"{where}; all ranks start anew with {after.micro_batch}")
        restart.begin(after.text())

    def _after(self, fits: dict[int, int], fails: tuple[int, ...]) -> Known:
        """The next image's knowledge; its micro batch is 0 where nothing fits."""
        candidate = next_candidate(self._samples, self._training.micro_batch, fits, fails)
        if candidate is None:
            best = max(fits, default=0)
            return self._known.next(best, fits=fits, fails=fails, searched=True)
        return self._known.next(candidate, fits=fits, fails=fails)

    def _say_which(self) -> None:
        if self._known.round == 0 or not self._rank.is_main:
            return
        training = self._training
        say(f"micro batch {training.micro_batch} x accumulation {training.accumulation}")
        if self._plan.metrics_path is not None:
            write_record(
                self._plan.metrics_path.parent,
                self._known,
                training,
                group_shared=self._plan.group_shared,
            )
