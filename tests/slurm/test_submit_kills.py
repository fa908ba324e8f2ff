"""kill -9 of `ptx submit` wherever it hurts: submitted once, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.kill_at import POINTS
from support.submit_kills import killed_at

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

NOT_SUBMITTED = list(POINTS)[: list(POINTS).index("while sbatch runs")]
SUBMITTED = ["after sbatch", "after the submission"]


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_submission_is_one_job_or_none_and_the_next_command_knows(
    point: str, tmp_path: Path
) -> None:
    verdict = killed_at(point, tmp_path, f"killed-{os.urandom(3).hex()}")
    assert verdict.right, verdict
    if point in NOT_SUBMITTED:
        assert verdict.jobs == ()
    if point in SUBMITTED:
        assert len(verdict.jobs) == 1
