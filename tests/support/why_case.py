"""A failure that is provoked for real on CPU, what `ptx why` has to say of it, and what such
scripts are made of.

Scripts are as small as the failure allows: most need no torch, so a launch costs its launcher.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JOBS = Path(__file__).resolve().parents[2] / "jobs"


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    """What went wrong, in two words: cases of one kind differ in how it shows."""
    script: str
    state: str
    """The class that must be named."""
    rank: int | None
    """The first failing rank; None where no rank is to blame. ANY where all fail alike."""
    rule: str | None
    """The id of the rule that must explain it; None where the exception says all there is."""
    launcher: str = "torchrun"
    spec: dict[str, Any] = field(default_factory=dict)
    """More keys of the spec."""
    procs: int = 2
    listens: bool = False
    """While somebody listens on the port that the spec names as rendezvous.port."""


ANY = -1
"""Of several ranks that fail in the same way within milliseconds, any may be the first."""


@contextmanager
def listener() -> Iterator[int]:
    """A port of this machine that is taken."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


WAIT = "import os, time\nrank = int(os.environ['RANK'])\n"
"""Rank 0 waits to be told to end; rank 1 is what the case is about."""


def one(body: str) -> str:
    """Rank 1 does this half a second in, the others wait."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"{WAIT}if rank == 1:\n    time.sleep(0.5)\n{lines}time.sleep(60)\n"


GLOO = """
import datetime, os, signal, sys, time
import torch
import torch.distributed as dist
rank = int(os.environ["RANK"])
def start(seconds=60, **options):
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=seconds), **options)
    dist.all_reduce(torch.ones(1))
"""


def gloo(body: str, seconds: int = 60) -> str:
    return f"{GLOO}start({seconds})\n{body}"


TRAINING = f"""
import os, runpy, sys
{{change}}
sys.path.insert(0, "{JOBS}")
sys.argv = ["train_lm.py", "--steps", "2"]
runpy.run_path("{JOBS}/train_lm.py", run_name="__main__")
"""
"""One of ptx's own trainings, after a `change` that its wrapper makes."""

SUM = "dist.all_reduce(torch.ones(1))\n"
