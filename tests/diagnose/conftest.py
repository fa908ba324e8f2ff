"""Run folders of which `ptx why` is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.made_runs import MadeRun


@pytest.fixture
def make(tmp_path: Path) -> MadeRun:
    return MadeRun(tmp_path, "job-aaaaaa", procs=4).submitted().started()
