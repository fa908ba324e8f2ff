"""What an attempt's end is taken for, by SLURM's word and without it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.slurm_site import SILENT, Site

from orchestrator.agent import judgement
from orchestrator.agent.allocation import Allocation
from orchestrator.agent.classes import Policy, Verdict
from orchestrator.agent.judgement import Judge
from orchestrator.agent.placement import place, revoked

EVERY = Policy(3, ["failed", "preempted", "time-limit", "node-failure"], 0.0)
RUNNING = "JobId=7 JobState=RUNNING Restarts=0 Requeue=1 StartTime=2026-01-01T00:00:00"
OVER = "JobId=7 JobState=COMPLETING Requeue=1 TimeLimit=01:00:00 RunTime=00:10:00"
PREEMPTED = f"{RUNNING} PreemptTime=2026-01-01T01:00:00 EndTime=2026-01-01T02:00:00"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    site = Site(tmp_path)
    site.command("sinfo", "")
    return site


def ended(folder: Path, *reasons: str, **failure: Any) -> None:
    (folder / "events").mkdir(exist_ok=True)
    for node, reason in enumerate(reasons):
        fields = {"v": 1, "t": 3.0, "attempt": 0, "node": node}
        lines = [
            fields | {"type": "node_started"},
            fields | {"type": "node_ended", "reason": reason, "first_failure": failure or None},
        ]
        path = folder / "events" / f"a000-node-{node:04d}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def judged(folder: Path, *, ending: bool = False, wakes: Any = None) -> Verdict:
    """`wakes` is called while the judge waits."""

    def sleep(seconds: float) -> None:
        if wakes and seconds >= 1:
            wakes()
        time.sleep(min(seconds, 0.05))

    judge = Judge(folder, folder / "x", EVERY, Allocation({"SLURM_JOB_ID": "7"}), sleep)
    judge.ending = ending
    return judge.judge(0, ["a", "b"], time.time() - 3000)


def test_ranks_that_were_told_to_stop_while_slurm_is_silent_are_judged_once_it_speaks(
    site: Site, tmp_path: Path
) -> None:
    """In a partition's GraceTime nobody but the ranks hears of the preemption."""
    ended(tmp_path, "stopped", "stopped")
    site.falls_silent()
    verdict = judged(tmp_path, wakes=lambda: site.command("scontrol", f"echo '{PREEMPTED}'"))
    assert (verdict.name, verdict.retry, verdict.where) == ("preempted", True, "requeue")


@pytest.mark.parametrize("ending", [False, True])
def test_nobody_is_taken_to_have_cancelled_a_job_of_which_slurm_says_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: bool
) -> None:
    monkeypatch.setattr(judgement, "_PATIENCE", 0.0)
    ended(tmp_path, "terminated", "stopped")
    site.falls_silent()
    verdict = judged(tmp_path, ending=ending)
    assert (verdict.name, verdict.retry, verdict.where) == ("node-failure", True, "requeue")
    assert "SLURM does not say why" in verdict.message and verdict.nodes_failed == []
    end = {"v": 1, "t": 5, "type": "attempt_ended", "class": "node-failure", "retry": True}
    (tmp_path / "x").write_text((json.dumps(end) + "\n") * 3)
    assert judged(tmp_path, ending=ending)[:3:2] == ("cancelled", False), "again and again"


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        (f"{RUNNING} TimeLimit=01:00:00 RunTime=00:10:00", ("node-failure", True)),
        (OVER, ("cancelled", False)),
        (f"{OVER} Restarts=1", ("preempted", True)),
    ],
)
def test_a_job_that_is_told_to_end_waits_for_slurms_word_as_long_as_it_lives(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, wanted: tuple[str, bool]
) -> None:
    """A busy controller is silent for longer than a moment, and the SIGTERM need not be its own."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 600:
            site.command("scontrol", f"echo '{word}'")

    clock = SimpleNamespace(time=time.time, monotonic=lambda: now[0])
    monkeypatch.setattr(judgement, "time", clock)
    site.falls_silent()
    ended(tmp_path, "terminated", "terminated")
    judge = Judge(tmp_path, tmp_path / "x", EVERY, Allocation({"SLURM_JOB_ID": "7"}), sleep)
    judge.ending = True
    assert judge.judge(0, ["a", "b"], time.time() - 3000)[:3:2] == wanted


def test_nobody_waits_for_a_silent_slurm_whose_word_changes_nothing(
    site: Site, tmp_path: Path
) -> None:
    def wakes() -> None:
        raise AssertionError("it waits")

    site.falls_silent()
    ended(tmp_path, "rank-failed", "terminated", rank=0, code=1, message="ValueError: x", t=1.0)
    assert judged(tmp_path, wakes=wakes).name == "failed"
    ended(tmp_path, "completed", "completed")
    assert judged(tmp_path, wakes=wakes).name == "completed"
    assert judged(tmp_path, wakes=wakes, ending=True).name == "completed"


def test_a_sigterm_that_is_not_slurms_does_not_end_the_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a host that is shut down in good order."""
    monkeypatch.setattr(judgement, "_SETTLES", 0.3)
    site.command("scontrol", f"echo '{RUNNING}'")
    ended(tmp_path, "stopped", "stopped")
    verdict = judged(tmp_path, ending=True)
    assert (verdict.name, verdict.retry, verdict.where) == ("node-failure", True, "requeue")
    assert "not by SLURM" in verdict.message and verdict.nodes_failed == []
    end = {"v": 1, "t": 5, "type": "attempt_ended", "class": "node-failure", "retry": True}
    (tmp_path / "x").write_text((json.dumps(end) + "\n") * 3)
    assert judged(tmp_path, ending=True)[:3:2] == ("cancelled", False), "it comes again and again"
    ended(tmp_path, "rank-failed", "terminated", rank=0, code=1, message="ValueError: x", t=1.0)
    assert judged(tmp_path, ending=True).name == "failed"
    ended(tmp_path, "completed", "completed")
    assert judged(tmp_path, ending=True).name == "completed"


def test_a_sigterm_before_slurms_own_word_is_slurms(site: Site, tmp_path: Path) -> None:
    ended(tmp_path, "stopped", "stopped")
    site.command("scontrol", f"echo '{RUNNING}'")
    over = "JobId=7 JobState=COMPLETING Restarts=0 Requeue=1 TimeLimit=01:00:00 RunTime=00:10:00"
    verdict = judged(
        tmp_path, ending=True, wakes=lambda: site.command("scontrol", f"echo '{over}'")
    )
    assert (verdict.name, verdict.retry) == ("cancelled", False)


@pytest.mark.parametrize(
    ("reason", "state", "ran", "wanted"),
    [
        ("None", "allocated*", "00:10:00", ("cancelled", False, False, None)),
        ("None", "down*", "00:10:00", ("cancelled", False, False, None)),
        ("TimeLimit", "down*", "01:00:14", ("time-limit", True, True, "new-job")),
        ("NodeDown", "down*", "00:10:00", ("node-failure", True, False, "new-job")),
        ("NodeDown", "idle", "00:10:00", ("node-failure", True, False, "new-job")),
    ],
)
def test_a_job_that_may_not_be_requeued_ended_for_its_node_where_slurm_says_so_and_only_there(
    site: Site, tmp_path: Path, reason: str, state: str, ran: str, wanted: tuple[Any, ...]
) -> None:
    over = f"JobId=7 JobState=COMPLETING Reason={reason} Requeue=0 Restarts=0 ExitCode=0:0"
    job = f"{over} RunTime={ran} TimeLimit=01:00:00"
    site.command("scontrol", f'[ "$2" = job ] && {{ echo "{job}"; exit 0; }}; printf "a\\nb\\n"')
    site.command("sinfo", f"printf 'a|completing\\nb|{state}\\n'")
    ended(tmp_path, "terminated", "terminated")
    judge = Judge(tmp_path, tmp_path / "x", EVERY, Allocation({"SLURM_JOB_ID": "7"}))
    judge.ending = True
    verdict = judge.judge(0, ["a", "b"], time.time() - 3000)
    placed = place(verdict, judge.facts, ending=judge.ending, needed=0)
    assert (placed.name, placed.retry, placed.counted, placed.where) == wanted
    blamed = ["b"] if (reason, state) == ("NodeDown", "down*") else []
    assert placed.nodes_failed == blamed


def test_the_place_of_the_next_attempt_rests_on_the_answer_that_the_verdict_rests_on(
    site: Site, tmp_path: Path
) -> None:
    over = "JobId=7 JobState=COMPLETING Restarts=0 Requeue=1 TimeLimit=01:00:00 RunTime=01:00:10"
    site.command("scontrol", f"[ -e {tmp_path}/told ] && {{ {SILENT}; }}; echo '{over}'")
    ended(tmp_path, "stopped", "stopped")
    judge = Judge(tmp_path, tmp_path / "x", EVERY, Allocation({"SLURM_JOB_ID": "7"}))
    verdict = judge.judge(0, ["a", "b"], time.time() - 3000)
    (tmp_path / "told").touch()
    placed = place(verdict, judge.facts, ending=judge.ending, needed=0)
    assert (placed.name, placed.retry, placed.where) == ("time-limit", True, "new-job")


def test_a_run_that_was_cancelled_before_its_next_attempt_has_none() -> None:
    preempted = Verdict("preempted", "SLURM took the nodes", True, False, "requeue", [], None)
    assert revoked(preempted)[:5] == (
        "cancelled", "it was cancelled; before that, SLURM took the nodes", False, False, None
    )  # fmt: skip
    done = Verdict("completed", "all ranks exited with 0", False, False, None, [], None)
    assert revoked(done) == done
