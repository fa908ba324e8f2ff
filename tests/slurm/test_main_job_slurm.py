"""The main job and its violent ends on a real SLURM, under each launcher: two nodes, four ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import main_job
from support.ptx import LAUNCHERS, Ptx

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_four_ranks_on_two_nodes_complete_and_leave_their_logs_and_exit_records(
    ptx: Ptx, launcher: str
) -> None:
    main_job.completes(ptx, launcher, main_job.SLURM, ranks=4)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_kill_9_of_any_part_leaves_no_process(ptx: Ptx, tmp_path: Path, launcher: str) -> None:
    main_job.a_kill_leaves_nothing(ptx, tmp_path, launcher, main_job.SLURM, ranks=4)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_cancel_leaves_no_process(ptx: Ptx, tmp_path: Path, launcher: str) -> None:
    main_job.a_cancelled_run_leaves_nothing(ptx, tmp_path, launcher, main_job.SLURM, ranks=4)
