"""SLURM takes the nodes for another job: a run goes on by itself, whoever brings it back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from cluster import Cluster
from restarting import Start

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.usefixtures("on_disturbed"),
]


@pytest.fixture
def partition() -> Iterator[Callable[..., None]]:
    """Set GraceTime and PreemptMode of the partition that the runs are in."""

    def update(**settings: object) -> None:
        words = [f"{name}={value}" for name, value in settings.items()]
        subprocess.run(["scontrol", "update", "PartitionName=main", *words], check=True)

    yield update
    update(GraceTime=0, PreemptMode="REQUEUE")


@pytest.fixture
def qos(disturbed: Cluster) -> Iterator[str]:
    """SLURM preempts by QOS, whatever the partition; the jobs of this one are cancelled."""
    before = disturbed.conf.read_text()
    disturbed.conf.write_text(before.replace("preempt/partition_prio", "preempt/qos"))
    for words in (
        ("scontrol", "reconfigure"),
        ("sacctmgr", "-i", "add", "account", "lab"),
        ("sacctmgr", "-i", "add", "qos", "scavenger", "PreemptMode=cancel"),
        ("sacctmgr", "-i", "add", "qos", "urgent", "Preempt=scavenger"),
        ("sacctmgr", "-i", "add", "user", "root", "account=lab", "qos=normal,scavenger,urgent"),
    ):
        assert disturbed.run(*words).returncode == 0, words
    yield "scavenger"
    disturbed.run("sacctmgr", "-i", "delete", "account", "lab")
    disturbed.run("sacctmgr", "-i", "delete", "qos", "scavenger", "urgent")
    disturbed.conf.write_text(before)
    disturbed.run("scontrol", "reconfigure")


def _preempt(where: str = "-phigh") -> None:
    argv = ["sbatch", where, "-N4", "--exclusive", "-o/dev/null", "--wrap=sleep 1"]
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


def test_a_job_that_its_qos_cancels_is_continued_by_a_new_one(start: Start, qos: str) -> None:
    """The partition would have had it requeued."""
    run = start(SAVES_LITTLE, slurm={"qos": qos})
    run.until_step(5)
    job = run.job
    _preempt("--qos=urgent")
    run.until_attempt(1)
    run.until(lambda: run.sacct(job) == ["PREEMPTED"], "word of it in accounting")
    assert run.endings() == [("preempted", True, False, "new-job")]
    assert run.job != job
    assert run.lost() == 0


@pytest.mark.soak
def test_a_job_that_needs_more_than_its_gracetime_goes_on_where_its_qos_cancels(
    start: Start, disturbed: Cluster, qos: str
) -> None:
    disturbed.run("sacctmgr", "-i", "modify", "qos", qos, "set", "GraceTime=15")
    args = {"steps": 10000, "every": 10, "deaf": True}
    run = start(args, slurm={"qos": qos}, restart={"grace": "50s", "backoff": "1s"})
    run.until_step(25)
    job = run.job
    _preempt("--qos=urgent")
    run.until(lambda: "PreemptTime=2" in run.facts(), "the preemption")
    run.until_attempt(1)
    assert run.sacct(job) == ["PREEMPTED"]
    assert run.endings() == [("preempted", True, False, "new-job")]
    assert run.job != job


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
