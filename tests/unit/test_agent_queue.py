"""A supervisor's way back into the queue of a SLURM that does not always answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.agent import judgement
from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import Policy
from orchestrator.agent.events import Events
from orchestrator.agent.judgement import Judge, Silence
from orchestrator.agent.queue import Queue

SILENT = 'echo "$0: error: Unable to contact slurm controller" >&2; exit 1'
JOB = "JobId=7 JobState=RUNNING Restarts={restarts} Requeue={requeue} ExcNodeList=(null)"


class Site:
    """SLURM's commands as scripts, each noting that it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "asked"
        self.answers(restarts=0)

    def command(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{text}\n')
        path.chmod(0o755)

    def answers(
        self, *, restarts: int, requeue: int = 1, refuses: str = "", queue: str = ""
    ) -> None:
        says = f"echo '{refuses}' >&2; exit 1" if refuses else "exit 0"
        job = JOB.format(restarts=restarts, requeue=requeue)
        self.command("scontrol", f'[ "$1" = requeue ] || {{ echo "{job}"; exit 0; }}\n{says}')
        self.command("squeue", f"echo '{queue}'")
        self.command("sbatch", "echo 8")

    def falls_silent(self) -> None:
        for name in ("scontrol", "squeue", "sbatch"):
            self.command(name, SILENT)

    def asked(self, words: str) -> int:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sum(line.startswith(words) for line in lines)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Site(tmp_path)


Go = Callable[..., list[str]]


@pytest.fixture
def go(site: Site, tmp_path: Path) -> Go:
    """How the run goes on, as its events tell; `wakes` is called at the third pause."""

    def one(where: str, wakes: Callable[[], None], *, cancelled: bool = False) -> list[str]:
        path = tmp_path / "job.jsonl"
        allocation = Allocation({"SLURM_JOB_ID": "7"})
        judge = Judge(tmp_path, path, Policy(3, [], 0.0), allocation)
        pauses = 0

        def sleep(seconds: float, *, through_signals: bool = False) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 3:
                wakes()
                judge.ending = cancelled

        events, script = Events(path, 0o600), tmp_path / "job.sbatch"
        queue = Queue(allocation, judge, events, script, "run-aaaaaa", sleep)
        assert queue.go_on(0, "time-limit", where) == 1
        lines = path.read_text().splitlines() if path.exists() else []
        told = [json.loads(line) for line in lines]
        return [f"{one['type']} {one.get('job_id', '')}".strip() for one in told]

    return one


def test_a_job_whose_requeueing_was_not_answered_is_not_submitted_besides(
    site: Site, go: Go
) -> None:
    site.falls_silent()
    taken = "Job is being requeued"
    assert go("requeue", lambda: site.answers(restarts=1, refuses=taken)) == ["requeue"]
    assert site.asked("sbatch") == 0
    assert site.asked("scontrol requeue") == 4


def test_a_site_that_refuses_to_requeue_gets_a_new_job_once_it_answers(site: Site, go: Go) -> None:
    site.falls_silent()
    refused = "Requested operation is disabled"
    told = go("requeue", lambda: site.answers(restarts=0, refuses=refused))
    assert told == ["requeue", "submitted 8"]
    assert site.asked("sbatch") == 1


def test_a_new_job_waits_until_slurm_answers(site: Site, go: Go) -> None:
    site.falls_silent()
    assert go("new-job", lambda: site.answers(restarts=0, requeue=0)) == ["submitted 8"]
    assert site.asked("sbatch") == 1


def test_a_new_job_whose_submission_was_not_answered_is_found_and_not_made_twice(
    site: Site, go: Go
) -> None:
    gone = f"{site.folder}/gone"
    site.answers(restarts=0, requeue=0)
    site.command("sbatch", f"touch {gone}; {SILENT}")
    site.command("scontrol", f'[ -e {gone} ] && {{ {SILENT}; }}; echo "JobId=7"')
    assert go("new-job", lambda: site.answers(restarts=0, queue="9")) == ["submitted 9"]
    assert site.asked("sbatch") == 1


@pytest.mark.parametrize("where", ["requeue", "new-job"])
def test_a_job_that_is_cancelled_while_slurm_was_silent_does_not_come_back(
    site: Site, go: Go, where: str
) -> None:
    def wakes() -> None:
        site.answers(restarts=0)
        state = (
            "JobId=7 JobState=CANCELLED Restarts=0 Requeue=1 TimeLimit=01:00:00 RunTime=00:01:00"
        )
        site.command("scontrol", f'echo "{state}"')

    site.falls_silent()
    assert go(where, wakes, cancelled=True) == (["requeue"] if where == "requeue" else [])
    assert site.asked("sbatch") == 0
    assert site.asked("scontrol requeue") == (3 if where == "requeue" else 0)


@pytest.mark.parametrize("said", ["Socket timed out on send/recv operation", "Unexpected message"])
def test_a_submission_that_nobody_answered_is_no_refusal(site: Site, go: Go, said: str) -> None:
    """Though the controller answers the next question."""
    site.answers(restarts=0, requeue=0)
    site.command("sbatch", f"echo '{said}' >&2; exit 1")
    silent = said.startswith("Socket")
    told = go("new-job", lambda: site.answers(restarts=0, queue="9"))
    assert told == (["submitted 9"] if silent else [])
    assert site.asked("sbatch") == (3 if silent else 1)


def test_a_job_that_slurm_has_requeued_after_all_is_not_submitted_besides(
    site: Site, go: Go
) -> None:
    site.answers(restarts=1)
    assert go("new-job", lambda: None) == []
    assert site.asked("sbatch") == 0


def test_why_slurm_ends_a_job_is_not_guessed_from_its_silence(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judgement, "_INSISTS", 0.0)
    site.falls_silent()
    judge = Judge(tmp_path, tmp_path / "x", Policy(3, [], 0.0), Allocation({"SLURM_JOB_ID": "7"}))
    judge.ending = True
    with pytest.raises(Silence):
        judge.judge(0, ["node0"], 0.0)
