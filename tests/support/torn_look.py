"""Run by each of two ranks: SCRIPT, with a stop file that appears between the looks of two ranks.

Usage: torn_look.py N SCRIPT ARGS... At the n-th look rank 1 sees nothing, and then puts the file
there; only then rank 0 looks.
"""

from __future__ import annotations

import itertools
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

STOP, RANK = os.environ["PTX_STOP_FILE"], int(os.environ["RANK"])
WITHIN = 120.0


def torn(at: int, exists: Callable[[Path], bool]) -> Callable[[Path], bool]:
    looks = itertools.count(1)

    def look(path: Path) -> bool:
        if str(path) != STOP:
            return exists(path)
        now = next(looks) == at
        deadline = time.monotonic() + WITHIN
        while now and RANK == 0 and not exists(path):
            assert time.monotonic() < deadline, "rank 1 has not looked"
            time.sleep(0.01)
        found = exists(path)
        if now and RANK == 1:
            assert not found
            path.touch()
        return found

    return look


if __name__ == "__main__":
    at, *sys.argv = sys.argv[1:]
    Path.exists = torn(int(at), Path.exists)  # type: ignore[method-assign, assignment]
    runpy.run_path(sys.argv[0], run_name="__main__")
