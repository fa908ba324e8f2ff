"""Nodes on which all stands still, and which SLURM calls well: a run goes on by itself."""

from __future__ import annotations

import pytest
from cluster import Cluster
from restarting import Start, SteppingRun, freeze_agent, process_state

from orchestrator.runs.events import Event

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("on_disturbed"),
]


def test_a_node_that_is_frozen_while_slurm_calls_it_well_is_blamed_and_the_run_goes_on(
    start: Start, disturbed: Cluster
) -> None:
    """Its agent notices nothing: the supervisor does, three missed beats later than a living agent
    would have."""
    run = start({"steps": 60}, resources={"nodes": 1}, restart={"hang_after": "5s"})
    node, frozen = freeze_last_node(run, disturbed)
    ended = first_end(run)
    assert (ended.text("class"), ended.fields["retry"]) == ("node-failure", True)
    assert ended.fields["nodes_failed"] == [node]
    assert ended.text("message").startswith(f"node 0 ({node}) has given no sign of life for ")
    goes_on_after(run, frozen)


@pytest.mark.soak
def test_a_node_of_two_that_is_frozen_until_slurm_wakes_it_is_a_hang_and_the_run_goes_on(
    start: Start, disturbed: Cluster
) -> None:
    """The other's agent is the first to notice. SLURM sends SIGCONT with the SIGTERM by which it
    ends the step, so that this one leaves a word after all and is not taken for lost."""
    restart = {"hang_after": "5s", "max": 1, "backoff": "1s"}
    run = start({"steps": 60}, resources={"nodes": 2}, restart=restart)
    _, frozen = freeze_last_node(run, disturbed)
    ended = first_end(run)
    assert (ended.text("class"), ended.fields["retry"]) == ("hang", True)
    assert (ended.fields["counted"], ended.fields["nodes_failed"]) == (True, [])
    goes_on_after(run, frozen)


def freeze_last_node(run: SteppingRun, disturbed: Cluster) -> tuple[str, list[int]]:
    """Its name, and the processes that stand still."""
    run.until_step(15)
    node = run.nodes(0)[-1]
    frozen = freeze_agent(disturbed, node)
    assert len(frozen) > 2
    assert disturbed.node_states()[node].startswith(("alloc", "mix")), "SLURM sees nothing of it"
    return node, frozen


def first_end(run: SteppingRun) -> Event:
    run.until(lambda: run.events("attempt_ended"), "the end of the attempt", within=300)
    (ended,) = run.events("attempt_ended")
    return ended


def goes_on_after(run: SteppingRun, frozen: list[int]) -> None:
    assert run.ended() == "COMPLETED"
    assert run.endings()[1:] == [("completed", False, False, None)]
    assert run.lost() <= 10
    assert {process_state(pid) for pid in frozen} <= {"", "Z"}
