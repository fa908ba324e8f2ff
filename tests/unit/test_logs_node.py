"""A real agent with real shims: logs that rotate, keep to their cap, and are packed at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.node_run import NodeRun

from orchestrator.logs.discovery import number_of, parts
from orchestrator.logs.line import TEXT
from orchestrator.logs.reader import LogReader

RANK = """
import os
for i in range(40_000):
    print(f"{os.environ['RANK']}.{i} {'x' * 60}")
"""


@pytest.mark.slow
def test_what_two_ranks_print_is_rotated_capped_packed_and_shown(tmp_path: Path) -> None:
    """4 MB each with at most 3 MiB kept, in parts of 1 MiB and compressed."""
    wanted = {"rotate": "1MB", "max": "3MB", "compress": True}
    run = NodeRun(tmp_path, RANK, logging=wanted).start()
    try:
        assert run.wait() == 0, run.story()
        for rank in (0, 1):
            there = parts(run.node, rank)
            assert all(path.suffix == ".gz" for path in there)
            numbers = [number_of(path) for path in there]
            assert numbers[0] == 0 and 1 not in numbers and len(numbers) >= 2
            assert run.records()[rank]["dropped_bytes"] > 0
            reader, lines = LogReader(run.node / f"rank-{rank:05d}.log", 0), []
            while (more := reader.read()) is not None:
                lines += [entry[2][TEXT:] for entry in more]
            assert lines[0].split()[0] == f"{rank}.0" and lines[-1].split()[0] == f"{rank}.39999"
            assert sum("was dropped (logging.max)" in line for line in lines) == 1
    finally:
        run.destroy()
