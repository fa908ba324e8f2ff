"""What the ranks' vote at each step tells the node's agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from orchestrator.training.agent_files import AgentFiles
from orchestrator.training.stop import StopVote

pytestmark = pytest.mark.slow


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_no_step_is_reported_before_the_first_one_is_made(tmp_path: Path) -> None:
    step = tmp_path / "step"
    with StopVote(AgentFiles(tmp_path / "stop", step)) as stop:
        assert not stop.agreed()
        assert not step.exists(), "the first step, which may compile for long, is still to come"
        assert not stop.agreed()
        assert step.exists()
