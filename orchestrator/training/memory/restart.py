"""All ranks start anew together, whatever they are in the middle of.

A rank whose memory ran out cannot take its part in the collectives that the others wait in. So it
tells them through the process group's store, where a thread of each is waiting, and all replace
themselves by a new image in place.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from typing import NoReturn

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from orchestrator.training.memory.anew import parent_death_signal, start_anew
from orchestrator.training.memory.known import VARIABLE
from orchestrator.training.process_group import Rank, store_outlives_ranks
from orchestrator.training.stop import StopVote

_TRAINING = timedelta(days=20)
_ANSWER = timedelta(minutes=5)
"""For a rank that does not let its other threads run, as a compiler may."""
_RESERVE_BYTES = 32 << 20
"""Given back before anything is said: where not a byte is left, nobody would hear of it."""
_trainings = itertools.count()


class Restart:
    """From here until `close` each rank can make all of them start anew, or end.

    The thread waits in the store, on a connection of its own, and costs nothing meanwhile.
    """

    def __init__(self, rank: Rank, stop: StopVote) -> None:
        """All ranks make one together."""
        self._rank, self._stop = rank, stop
        self._parent_death = parent_death_signal()
        name = f"ptx/restart/{next(_trainings)}"
        self._tell = PrefixStore(name, _get_default_store())
        own_connection = _get_default_store().clone()  # type: ignore[attr-defined]
        self._listen = PrefixStore(name, own_connection)
        self._leaving = threading.Event()
        self._reserve: bytearray | None = bytearray(_RESERVE_BYTES)  # untouched: no page is used
        self._thread = threading.Thread(target=self._watch, name="restart", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Every rank has done its part, or this one has failed: nothing is to be started anew."""
        with suppress(dist.DistError):  # the store is gone, which ends the thread as well
            self._tell.set(self._key(self._rank.rank), "")
        self._thread.join()

    def begin(self, environment: str) -> NoReturn:
        """Have all ranks start anew with `environment` as VARIABLE; the first to say so wins."""
        self._announce({"environment": environment})

    def end(self, message: str) -> NoReturn:
        """Have all ranks end with this line on stderr and exit code 1."""
        self._announce({"end": message})

    def wait_if_leaving(self) -> None:
        """Return where no restart is under way; else never. For errors that another rank's
        leaving causes here."""
        if self._leaving.is_set():
            self._stay()

    def wait(self) -> NoReturn:
        """For the restart that another rank announces."""
        self._stay()

    def _announce(self, decision: dict[str, str]) -> NoReturn:
        self._reserve = None
        said = self._tell.compare_set("decision", "", json.dumps(decision))
        everyone = [self._key(rank) for rank in range(self._rank.world_size)]
        self._tell.multi_set(everyone, [said] * len(everyone))  # type: ignore[attr-defined]
        self._stay()

    def _stay(self) -> NoReturn:
        self._thread.join()
        raise RuntimeError("the thread that starts this rank anew has ended")

    @staticmethod
    def _key(rank: int) -> str:
        return f"rank/{rank}"

    def _watch(self) -> None:
        key = self._key(self._rank.rank)
        try:
            self._listen.wait([key], _TRAINING)
            said = self._listen.get(key)
        except dist.DistError:
            return  # rank 0 is gone, or the launcher: whoever ended them ends this rank
        if said:
            self._reserve = None
            self._leaving.set()
            self._leave(json.loads(said))

    def _leave(self, decision: dict[str, str]) -> None:
        try:
            self._wait_for_all()
        except (dist.DistStoreError, TimeoutError):
            waited = int(_ANSWER.total_seconds())
            self._exit(
                f"training-failed: rank {self._rank.rank}: not all ranks answered within "
                f"{waited} s that they leave"
            )
        if "end" in decision:
            self._exit(decision["end"])
        start_anew(
            {VARIABLE: decision["environment"]},
            parent_death=self._parent_death,
            asked_to_stop=self._stop.asked,
        )

    def _wait_for_all(self) -> None:
        """Until every rank knows. Where rank 0 has the store, the others wait until it is gone:
        none must meet the old one when it starts anew. Raises TimeoutError, DistStoreError."""
        if store_outlives_ranks() or self._rank.is_main:
            self._answer()
            self._listen.wait(["all"], _ANSWER)
            return
        server = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        with socket.create_connection(server, timeout=_ANSWER.total_seconds()) as connection:
            self._answer()
            with suppress(ConnectionError):
                connection.recv(1)  # nothing is ever sent: it returns when the server ends

    def _answer(self) -> None:
        if self._listen.add("answers", 1) == self._rank.world_size:
            self._listen.set("all", "")

    @staticmethod
    def _exit(message: str) -> NoReturn:
        """From this thread: the main one may never return from where it is."""
        sys.stdout.flush()
        sys.stderr.write(message + "\n")
        sys.stderr.flush()
        os._exit(1)
