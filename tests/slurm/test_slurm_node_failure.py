"""Nodes die, or fail again and again: a run goes on by itself on others."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest
from cluster import Cluster
from cluster_processes import wait_until
from restarting import (
    Start,
    SteppingRun,
    kill_processes,
    kill_rank,
)

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("on_disturbed"),
]


@pytest.mark.parametrize(
    "victim",
    [pytest.param(0, marks=pytest.mark.soak), 1],  # 0: test_never_lose_work, too
)
def test_a_node_dies_with_everything_on_it_and_the_run_goes_on_elsewhere(
    start: Start, disturbed: Cluster, victim: int
) -> None:
    run = start({"steps": 10000})
    run.until_step(15)
    node = run.nodes(0)[victim]
    disturbed.kill_node(node)
    assert kill_processes(disturbed, node) > 2
    run.until_attempt(1)
    # With the batch host gone, the agent of the other node may be faster than SLURM.
    assert run.sacct()[0] in ("NODE_FAIL", *(["REQUEUED"] if victim == 0 else []))
    (ended,) = run.events("attempt_ended")
    assert (ended.text("class"), ended.fields["retry"]) == ("node-failure", True)
    assert ended.fields["nodes_failed"] == [node]
    assert node not in run.nodes(1)
    assert run.lost() <= 10, "more than one checkpoint interval"


def test_a_node_dies_where_requeueing_is_forbidden_and_a_new_job_goes_on(
    start: Start, disturbed: Cluster
) -> None:
    run = start({"steps": 10000}, slurm={"options": {"no-requeue": True}})
    run.until_step(15)
    job, node = run.job, run.nodes(0)[1]
    disturbed.kill_node(node)
    assert kill_processes(disturbed, node) > 2
    run.until_attempt(1)
    assert run.sacct(job) == ["NODE_FAIL"]
    assert run.endings() == [("node-failure", True, False, "new-job")]
    assert run.events("attempt_ended")[0].fields["nodes_failed"] == [node]
    assert run.job != job
    assert node not in run.nodes(1)
    assert run.lost() <= 10


def test_a_cancelled_job_that_may_not_be_requeued_does_not_come_back_though_a_node_of_it_is_dead(
    start: Start, disturbed: Cluster
) -> None:
    run = start(
        {"steps": 10000},
        resources={"nodes": 2, "spare_nodes": 1},
        slurm={"options": {"no-requeue": True}},
    )
    run.until_step(5)
    (spare,) = {"node0", "node1", "node2"} - set(run.nodes(0))
    disturbed.kill_node(spare)
    run.until(lambda: disturbed.node_states()[spare].startswith("down"), "a dead spare")
    assert run.squeue().split("|")[1] == "RUNNING"
    subprocess.run(["scancel", run.job], check=True)
    assert run.ended() == "CANCELLED"
    assert run.endings() == [("cancelled", False, False, None)]
    assert len(run.events("submitted")) == 1


def test_ranks_that_outlive_their_slurmd_cannot_commit(start: Start, disturbed: Cluster) -> None:
    run = start({"steps": 10000, "haunt": True})
    run.until_step(15)
    node = run.nodes(0)[0]
    disturbed.kill_node(node)
    run.until_attempt(1)
    refused = run.layout.root / "refused"
    run.until(lambda: refused.exists() and refused.read_text(), "the old rank's try to save")
    assert "attempt 0 is over" in refused.read_text()
    assert node not in run.nodes(1)
    assert run.lost() <= 10


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_a_dead_node_is_replaced_by_a_spare_one(
    start: Start, disturbed: Cluster, victim: int
) -> None:
    run = start({"steps": 10000}, resources={"nodes": 2, "spare_nodes": 1})
    run.until_step(15)
    node = run.nodes(0)[victim]
    disturbed.kill_node(node)
    assert kill_processes(disturbed, node) > 2
    run.until_attempt(1)
    assert run.endings()[0][0] == "node-failure"
    assert node not in run.nodes(1)
    assert run.lost() <= 10
    assert bool(run.events("requeue")) == (victim == 0), "only the batch host's death needs that"


@pytest.fixture
def others(disturbed: Cluster) -> Iterator[str]:
    """A job that holds node2 and node3, so that any other gets node0 and node1."""
    where = ("-phigh", "-N2", "--nodelist=node[2-3]", "--exclusive", "-o/dev/null")
    job = disturbed.run("sbatch", "--parsable", *where, "--wrap=sleep 1000").stdout.strip()
    yield job
    disturbed.run("scancel", job)


def excluded(cluster: Cluster, job: str) -> set[str]:
    words = cluster.run("scontrol", "show", "job", "-o", job).stdout.split()
    named = dict(word.partition("=")[::2] for word in words)["ExcNodeList"]
    return set(cluster.run("scontrol", "show", "hostnames", named).stdout.split()) - {"(null)"}


@pytest.mark.parametrize(
    ("victim", "requeues"), [(0, True), (1, False), pytest.param(1, True, marks=pytest.mark.soak)]
)
def test_a_host_whose_ranks_die_twice_is_left_out_by_the_queue(
    start: Start, disturbed: Cluster, victim: int, requeues: bool
) -> None:
    """Its other nodes will do, so the job goes there; what the spec excludes stays excluded."""
    options = {} if requeues else {"no-requeue": True}
    run = start(
        {"steps": 10000},
        restart={"max": 5, "backoff": "1s"},
        slurm={"exclude": "node3", "options": options},
    )
    for attempt in (0, 1):
        run.until_step(15 if attempt == 0 else run.steps()[-1][1] + 3, attempt)
        node = run.nodes(0)[victim]
        assert run.nodes(attempt) == run.nodes(0)
        assert kill_rank(disturbed, node)
    first = run.job
    run.until_attempt(2)
    blamed = [event.fields["nodes_failed"] for event in run.events("attempt_ended")]
    assert blamed == [[node], [node]]
    assert node not in run.nodes(2)
    assert excluded(disturbed, run.job) == {node, "node3"}
    assert (run.job == first) == requeues
    assert len(run.events("requeue")) == requeues


@pytest.mark.soak
@pytest.mark.parametrize("victim", [0, 1])
def test_a_host_that_dies_twice_is_left_out_though_nobody_of_ours_was_left_there(
    start: Start, disturbed: Cluster, others: str, victim: int
) -> None:
    run = start({"steps": 10000})
    for attempt in (0, 1):
        run.until_step(15 if attempt == 0 else run.steps()[-1][1] + 3, attempt)
        assert run.nodes(attempt) == ["node0", "node1"]
        node = run.nodes(attempt)[victim]
        disturbed.kill_node(node)
        assert kill_processes(disturbed, node) > 2
        run.until(lambda: "down" in str(disturbed.node_states()), f"{node} down")
        run.until(lambda: run.squeue().split("|")[1] == "PENDING", "the way into the queue")
        time.sleep(15)  # SLURM's late word to end the first start would end the second one there
        disturbed.start()
    disturbed.run("scancel", others)
    run.until_attempt(2)
    assert [e.fields["nodes_failed"] for e in run.events("attempt_ended")] == [[node], [node]]
    assert node not in run.nodes(2)
    assert node in excluded(disturbed, run.job)


def blame(run: SteppingRun, *hosts: str) -> None:
    """As if an earlier attempt each had ended because of them."""
    failed = {"v": 1, "t": time.time(), "type": "attempt_ended", "attempt": 0, "retry": True}
    with (run.layout.root / "events/job.jsonl").open("a") as events:
        for host in hosts:
            events.write(json.dumps({**failed, "nodes_failed": [host]}) + "\n")


def test_where_most_hosts_failed_twice_the_latest_are_avoided_and_the_job_does_not_wait_for_ever(
    start: Start, disturbed: Cluster
) -> None:
    run = start({"steps": 10000}, slurm={"exclude": "node3"})
    run.until_step(5)
    assert sorted(run.nodes(0)) == ["node0", "node1"]
    blame(run, "node0", "node0", "node1", "node1")
    subprocess.run(["scancel", "--signal=USR2", run.job], check=True)
    run.until_attempt(1)
    assert sorted(run.nodes(1)) == ["node0", "node2"], "node1 is the latest that failed"
    assert excluded(disturbed, run.job) == {"node1", "node3"}


@pytest.fixture
def confined(request: pytest.FixtureRequest, disturbed: Cluster) -> Iterator[dict[str, str]]:
    """The section slurm of a spec whose job can run on node0 and node1 alone."""
    kind = request.param
    nodes, name = "node[0-1]", "ReservationName=lab"
    when = ("users=root", "starttime=now", "duration=60")
    begin, end = {
        "reservation": (("create", "reservation", name, *when, f"nodes={nodes}"), ("delete", name)),
        "constraint": (
            ("update", f"NodeName={nodes}", "AvailableFeatures=lab"),
            ("update", f"NodeName={nodes}", "AvailableFeatures=", "ActiveFeatures="),
        ),
    }[kind]
    assert disturbed.run("scontrol", *begin).returncode == 0
    yield {kind: "lab"}
    # A reservation goes when its last job has.
    assert wait_until(lambda: disturbed.run("scontrol", *end).returncode == 0, 60)


@pytest.mark.parametrize("confined", ["reservation", "constraint"], indirect=True)
def test_a_host_that_failed_twice_is_kept_where_the_job_could_start_nowhere_without_it(
    confined: dict[str, str], start: Start, disturbed: Cluster
) -> None:
    """Though the partition has nodes enough."""
    run = start({"steps": 10000}, slurm=confined)
    run.until_step(5)
    assert sorted(run.nodes(0)) == ["node0", "node1"]
    blame(run, "node0", "node0")
    subprocess.run(["scancel", "--signal=USR2", run.job], check=True)
    run.until_attempt(1)
    assert sorted(run.nodes(1)) == ["node0", "node1"]
    assert excluded(disturbed, run.job) == set()


def test_a_run_on_one_node_goes_on_though_all_its_ranks_processes_were_killed(
    start: Start, disturbed: Cluster
) -> None:
    """The node itself is well, and so is the supervisor."""
    run = start({"steps": 60}, resources={"nodes": 1})
    run.until_step(15)
    (node,) = run.nodes(0)
    assert kill_processes(disturbed, node, batch=False) > 2
    assert run.ended() == "COMPLETED"
    assert run.endings() == [
        ("node-failure", True, False, "allocation"),
        ("completed", False, False, None),
    ]
    assert run.lost() <= 10
