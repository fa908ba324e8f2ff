"""What the ranks' vote at each step tells the node's agent."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from orchestrator.agent.stopping import Stopping
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


@pytest.mark.usefixtures("alone")
def test_the_agent_reads_which_step_was_made(tmp_path: Path) -> None:
    agent = Stopping()
    clock = itertools.count()
    try:
        with StopVote(AgentFiles(tmp_path / "stop", agent.step_file, lambda: next(clock))) as stop:
            assert not stop.agreed(steps=(1200, 1200))
            assert agent.progress == {"stepped": False, "start_step": None, "step": None}
            for done in (1201, 1202):
                assert not stop.agreed(steps=(1200, done))
            assert agent.progress == {"stepped": True, "start_step": 1200, "step": 1202}
            stop.alive()
            assert agent.progress["step"] == 1202
        agent.step_file.write_text("")
        assert agent.progress == {"stepped": True, "start_step": None, "step": None}
    finally:
        agent.remove()
