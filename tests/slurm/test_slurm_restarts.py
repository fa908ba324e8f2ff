"""A run goes on by itself: warned, preempted, crashed, hung, or bereft of a node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cluster as cluster_script
import pytest
from cluster import Cluster
from restarting import SteppingRun, kill_processes, kill_rank
from support.ptx import LAUNCHERS, Ptx

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

"""Every node in its turn, which takes minutes."""
Start = Callable[..., SteppingRun]


@pytest.fixture(autouse=True)
def _disturbed_is_spoken_to(disturbed, _spoken_to, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", str(disturbed.conf))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[SteppingRun] = []

    def one(args: dict[str, Any] | None = None, **sections: Any) -> SteppingRun:
        runs.append(SteppingRun(Ptx(tmp_path / "runs"), tmp_path, args or {}, **sections))
        return runs[-1]

    yield one
    for run in runs:
        run.end()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_after_the_warning_the_job_is_requeued_once_and_no_step_is_lost(
    start: Start, launcher: str
) -> None:
    run = start({"steps": 10000}, launcher=launcher)
    run.until_step(5)
    job = run.job
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    run.until_attempt(1)
    assert run.events("signal"), "the warning was meant to reach the agents"
    assert [e.text("reason") for e in run.events("node_ended")] == ["stopped", "stopped"]
    assert run.endings() == [("time-limit", True, False, "requeue")]
    assert [e.text("reason") for e in run.events("requeue")] == ["time-limit"]
    assert run.squeue().split("|")[0] == job
    assert run.lost() == 0
    run.end()
    assert run.ended() == "CANCELLED"


def test_whoever_follows_the_logs_is_taken_through_the_queue_into_the_next_attempt(
    start: Start,
) -> None:
    run = start({"steps": 60})
    run.until_step(5)
    argv = [*run.ptx.argv, "logs", run.layout.run_id, "--follow"]
    env = os.environ | {"PTX_RUNS": str(run.ptx.runs)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as follower:
        subprocess.run(["scancel", "--signal=USR2", run.job], check=True)
        out, _ = follower.communicate(timeout=150)
    assert follower.returncode == 0
    run.until(lambda: len(run.endings()) == 2, "the supervisor's last word")
    assert run.endings() == [
        ("time-limit", True, False, "requeue"),
        ("completed", False, False, None),
    ]
    said = [line.split("] ")[-1] for line in out.splitlines()]
    (stopped,) = {line for line in said if line.startswith("stopped at step ")}
    goes_on = stopped.replace("stopped at", "ready from")
    assert said.count(stopped) == said.count(goes_on) == said.count("done") == 2
    assert said.index(stopped) < said.index(goes_on) < said.index("done")


def test_where_requeueing_is_forbidden_a_new_job_continues_the_run(start: Start) -> None:
    run = start({"steps": 10000}, slurm={"options": {"no-requeue": True}})
    run.until_step(5)
    job = run.job
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    run.until_attempt(1)
    assert run.endings() == [("time-limit", True, False, "new-job")]
    assert not run.events("requeue")
    assert run.job != job
    assert run.squeue().split("|")[0] == run.job
    assert run.lost() == 0


@pytest.fixture
def partition() -> Iterator[Callable[..., None]]:
    """Set GraceTime and PreemptMode of the partition that the runs are in."""

    def update(**settings: object) -> None:
        words = [f"{name}={value}" for name, value in settings.items()]
        subprocess.run(["scontrol", "update", "PartitionName=main", *words], check=True)

    yield update
    update(GraceTime=0, PreemptMode="REQUEUE")


def _preempt() -> None:
    argv = ["sbatch", "-phigh", "-N4", "--exclusive", "-o/dev/null", "--wrap=sleep 1"]
    subprocess.run(argv, check=True, capture_output=True)


SAVES_LITTLE = {"steps": 10000, "every": 100000}


def test_a_preempted_job_saves_within_the_grace_and_slurm_brings_it_back(start: Start) -> None:
    run = start(SAVES_LITTLE)
    run.until_step(5)
    _preempt()
    run.until_attempt(1)
    run.until(lambda: run.sacct()[:1] == ["PREEMPTED"], "word of it in accounting")
    assert run.endings() == [("preempted", True, False, "requeue")]
    assert [e.text("reason") for e in run.events("node_ended")] == ["stopped", "stopped"]
    assert not run.events("requeue"), "SLURM has done that"
    assert run.lost() == 0


def test_a_job_that_ends_within_the_partitions_gracetime_goes_back_into_the_queue(
    start: Start, partition: Callable[..., None]
) -> None:
    """SLURM tells the ranks at once and would end the job later: it forgets one that ends first."""
    partition(GraceTime=60)
    run = start(SAVES_LITTLE)
    run.until_step(5)
    _preempt()
    run.until_attempt(1)
    assert run.endings() == [("preempted", True, False, "requeue")]
    assert [e.text("reason") for e in run.events("requeue")] == ["preempted"]
    assert run.squeue().split("|")[0] == run.events("submitted")[0].text("job_id")
    assert run.lost() == 0


@pytest.mark.parametrize(
    ("mode", "option"),
    [
        ("CANCEL", "requeue"),
        pytest.param("REQUEUE", "no-requeue", marks=pytest.mark.soak),
    ],
)
def test_a_preempted_job_that_slurm_does_not_bring_back_is_continued_by_a_new_one(
    start: Start, partition: Callable[..., None], mode: str, option: str
) -> None:
    partition(PreemptMode=mode)
    run = start(SAVES_LITTLE, slurm={"options": {option: True}})
    run.until_step(5)
    job = run.job
    _preempt()
    run.until_attempt(1)
    run.until(lambda: run.sacct(job) == ["PREEMPTED"], "word of it in accounting")
    assert run.endings() == [("preempted", True, False, "new-job")]
    assert run.job != job
    assert run.squeue().split("|")[0] == run.job
    assert run.lost() == 0


@pytest.mark.soak
def test_a_job_cancelled_within_its_gracetime_stays_cancelled(
    start: Start, partition: Callable[..., None]
) -> None:
    partition(GraceTime=60)
    run = start({**SAVES_LITTLE, "deaf": True}, restart={"grace": "50s"})
    run.until_step(5)
    _preempt()
    run.until(lambda: "PreemptTime=2" in run.facts(), "the preemption")
    time.sleep(7)
    subprocess.run(["scancel", run.job], check=True)
    assert run.ended() == "CANCELLED"
    assert run.endings() in ([], [("cancelled", False, False, None)])
    assert not run.events("requeue")
    assert len(run.events("submitted")) == 1


def test_a_cancelled_job_saves_and_stays_cancelled(start: Start) -> None:
    run = start({"steps": 10000, "every": 100000}, restart={"max": 5})
    run.until_step(5)
    subprocess.run(["scancel", run.job], check=True)  # not through ptx, which would note it
    assert run.ended() == "CANCELLED"
    assert run.endings() == [("cancelled", False, False, None)]
    assert run.committed() == [(run.steps()[-1][1], 0)]
    assert not run.events("requeue")


def test_a_crash_restarts_the_ranks_in_the_allocation_until_the_budget_is_used_up(
    start: Start,
) -> None:
    run = start(
        {"steps": 10000, "crash-in": 3, "crash-at": 15}, restart={"max": 2, "backoff": "1s"}
    )
    assert run.ended() == "FAILED"
    failed = ("failed", True, True, "allocation")
    assert run.endings() == [failed, failed, ("failed", False, False, None)]
    ends, starts = run.events("attempt_ended"), run.events("job_started")
    assert all("RuntimeError: on purpose at step" in e.text("message") for e in ends)
    assert "restart.max (2) is used up" in ends[-1].text("message")
    assert len({e.text("job_id") for e in starts}) == 1
    pauses = [begun.t - over.t for over, begun in zip(ends, starts[1:], strict=False)]
    assert pauses[0] >= 1
    assert pauses[1] >= 2
    assert run.steps()[0] == (0, 1)
    assert (1, 11) in run.steps(), "the checkpoint of step 10 was meant to be resumed"


@pytest.mark.parametrize(
    ("error", "name"), [("MemoryError", "out-of-memory"), ("ImportError", "failed")]
)
def test_what_would_end_the_same_way_is_not_started_again(
    start: Start, error: str, name: str
) -> None:
    run = start({"crash-in": 9, "crash-with": error}, restart={"max": 5}, resources={"nodes": 1})
    assert run.ended() == "FAILED"
    assert run.endings() == [(name, False, False, None)]
    assert error in run.events("attempt_ended")[0].text("message")


def test_a_hang_is_noticed_ended_and_started_again(start: Start) -> None:
    run = start(
        {"steps": 20, "hang-at": 12}, restart={"max": 1, "hang_after": "3s", "backoff": "1s"}
    )
    assert run.ended() == "COMPLETED"
    assert run.endings() == [
        ("hang", True, True, "allocation"),
        ("completed", False, False, None),
    ]
    assert "hang" in [e.text("reason") for e in run.events("node_ended")]


@pytest.fixture
def healed(disturbed: Cluster) -> Iterator[Cluster]:
    """Dead nodes come back after the test."""
    yield disturbed
    script, port = cluster_script.__file__, str(disturbed.settings.port)
    argv = [sys.executable, script, "start", "--dir", str(disturbed.root), "--port", port]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.mark.parametrize(
    "victim",
    [pytest.param(0, marks=pytest.mark.soak), 1],  # 0: test_never_lose_work, too
)
def test_a_node_dies_with_everything_on_it_and_the_run_goes_on_elsewhere(
    start: Start, healed: Cluster, victim: int
) -> None:
    run = start({"steps": 10000})
    run.until_step(15)
    node = run.nodes(0)[victim]
    healed.kill_node(node)
    assert kill_processes(healed, node) > 2
    run.until_attempt(1)
    # With the batch host gone, the agent of the other node may be faster than SLURM.
    assert run.sacct()[0] in ("NODE_FAIL", *(["REQUEUED"] if victim == 0 else []))
    (ended,) = run.events("attempt_ended")
    assert (ended.text("class"), ended.fields["retry"]) == ("node-failure", True)
    assert ended.fields["nodes_failed"] == [node]
    assert node not in run.nodes(1)
    assert run.lost() < 10, "more than one checkpoint interval"


def test_ranks_that_outlive_their_slurmd_cannot_commit(start: Start, healed: Cluster) -> None:
    run = start({"steps": 10000, "haunt": True})
    run.until_step(15)
    where = [number for number in (0, 1) if run.layout.rank_log(0, number, 0).exists()]
    node = run.nodes(0)[where[0]]
    healed.kill_node(node)
    run.until_attempt(1)
    refused = run.layout.root / "refused"
    run.until(refused.exists, "the old rank's try to save")
    assert "attempt 0 is over" in refused.read_text()
    assert node not in run.nodes(1)
    assert run.lost() < 10


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.soak), 1])
def test_a_dead_node_is_replaced_by_a_spare_one(start: Start, healed: Cluster, victim: int) -> None:
    run = start({"steps": 10000}, resources={"nodes": 2, "spare_nodes": 1})
    run.until_step(15)
    node = run.nodes(0)[victim]
    healed.kill_node(node)
    assert kill_processes(healed, node) > 2
    run.until_attempt(1)
    assert run.endings()[0][0] == "node-failure"
    assert node not in run.nodes(1)
    assert run.lost() < 10
    assert bool(run.events("requeue")) == (victim == 0), "only the batch host's death needs that"


@pytest.fixture
def others(healed: Cluster) -> Iterator[str]:
    """A job that holds node2 and node3, so that any other gets node0 and node1."""
    where = ("-phigh", "-N2", "--nodelist=node[2-3]", "--exclusive", "-o/dev/null")
    job = healed.run("sbatch", "--parsable", *where, "--wrap=sleep 1000").stdout.strip()
    yield job
    healed.run("scancel", job)


def excluded(cluster: Cluster, job: str) -> set[str]:
    words = cluster.run("scontrol", "show", "job", "-o", job).stdout.split()
    named = dict(word.partition("=")[::2] for word in words)["ExcNodeList"]
    return set(cluster.run("scontrol", "show", "hostnames", named).stdout.split())


@pytest.mark.parametrize(
    ("victim", "requeues"), [(0, True), (1, False), pytest.param(1, True, marks=pytest.mark.soak)]
)
def test_a_host_whose_ranks_die_twice_is_left_out_by_the_queue(
    start: Start, healed: Cluster, victim: int, requeues: bool
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
        assert kill_rank(healed, node)
    first = run.job
    run.until_attempt(2)
    blamed = [event.fields["nodes_failed"] for event in run.events("attempt_ended")]
    assert blamed == [[node], [node]]
    assert node not in run.nodes(2)
    assert excluded(healed, run.job) == {node, "node3"}
    assert (run.job == first) == requeues
    assert len(run.events("requeue")) == requeues


@pytest.mark.soak
@pytest.mark.parametrize("victim", [0, 1])
def test_a_host_that_dies_twice_is_left_out_though_nobody_of_ours_was_left_there(
    start: Start, healed: Cluster, others: str, victim: int
) -> None:
    run = start({"steps": 10000})
    for attempt in (0, 1):
        run.until_step(15 if attempt == 0 else run.steps()[-1][1] + 3, attempt)
        assert run.nodes(attempt) == ["node0", "node1"]
        node = run.nodes(attempt)[victim]
        healed.kill_node(node)
        assert kill_processes(healed, node) > 2
        run.until(lambda: "down" in str(healed.node_states()), f"{node} down")
        run.until(lambda: run.squeue().split("|")[1] == "PENDING", "the way into the queue")
        time.sleep(15)  # SLURM's late word to end the first start would end the second one there
        healed.start()
    healed.run("scancel", others)
    run.until_attempt(2)
    assert [e.fields["nodes_failed"] for e in run.events("attempt_ended")] == [[node], [node]]
    assert node not in run.nodes(2)
    assert node in excluded(healed, run.job)


def test_where_most_hosts_failed_twice_the_latest_are_avoided_and_the_job_does_not_wait_for_ever(
    start: Start, disturbed: Cluster
) -> None:
    run = start({"steps": 10000}, slurm={"exclude": "node3"})
    run.until_step(5)
    assert sorted(run.nodes(0)) == ["node0", "node1"]
    failed = {"v": 1, "t": time.time(), "type": "attempt_ended", "attempt": 0, "retry": True}
    with (run.layout.root / "events/job.jsonl").open("a") as events:
        for host in ("node0", "node0", "node1", "node1"):
            events.write(json.dumps({**failed, "nodes_failed": [host]}) + "\n")
    subprocess.run(["scancel", "--signal=USR2", run.job], check=True)
    run.until_attempt(1)
    assert sorted(run.nodes(1)) == ["node0", "node2"], "node1 is the latest that failed"
    assert excluded(disturbed, run.job) == {"node1", "node3"}


def test_a_run_on_one_node_goes_on_though_all_its_ranks_processes_were_killed(
    start: Start, healed: Cluster
) -> None:
    """The node itself is well, and so is the supervisor."""
    run = start({"steps": 60}, resources={"nodes": 1})
    run.until_step(15)
    (node,) = run.nodes(0)
    assert kill_processes(healed, node, batch=False) > 2
    assert run.ended() == "COMPLETED"
    assert run.endings() == [
        ("node-failure", True, False, "allocation"),
        ("completed", False, False, None),
    ]
    assert run.lost() < 10
