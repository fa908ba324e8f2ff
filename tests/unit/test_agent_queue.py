"""A supervisor's way back into the queue of a SLURM that does not always answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.slurm_site import SILENT, Site

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.bad_hosts import exclusion
from orchestrator.agent.classes import Past, Policy
from orchestrator.agent.clients import cancelled, first_attempt
from orchestrator.agent.events import Events
from orchestrator.agent.judgement import Judge
from orchestrator.agent.queue import Queue


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Site(tmp_path)


Go = Callable[..., list[str]]


@pytest.fixture
def go(site: Site, tmp_path: Path) -> Go:
    """How the run goes on, as its events tell; `wakes` is called at the third pause."""

    def one(where: str, wakes: Callable[[], None], *, ending: bool = False) -> list[str]:
        path = tmp_path / "job.jsonl"
        allocation = Allocation({"SLURM_JOB_ID": "7"})
        pauses = 0

        def sleep(seconds: float, *, through_signals: bool = False) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 3:
                wakes()
                judge.ending = ending

        judge = Judge(tmp_path, path, Policy(3, [], 0.0), allocation, sleep)
        queue = Queue(
            allocation, judge, Events(path, 0o600), tmp_path, tmp_path / "job.sbatch", sleep
        )
        assert queue.go_on(0, "time-limit", where) == 1
        lines = path.read_text().splitlines() if path.exists() else []
        told = [json.loads(line) for line in lines]
        return [f"{one['type']} {one.get('job_id', '')}".strip() for one in told]

    return one


def test_a_job_whose_requeueing_was_not_answered_is_not_submitted_besides(
    site: Site, go: Go
) -> None:
    site.loses_requeues()
    taken = "Job is being requeued"
    assert go("requeue", lambda: site.answers(restarts=1, refuses=taken)) == ["requeue"]
    assert site.asked("sbatch") == 0
    assert site.asked("scontrol requeue") == 4


def test_a_site_that_refuses_to_requeue_gets_a_new_job_once_it_answers(site: Site, go: Go) -> None:
    site.loses_requeues()
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
    assert go(where, wakes, ending=True) == (["requeue"] if where == "requeue" else [])
    assert site.asked("sbatch") == 0
    assert site.asked("scontrol requeue") == (3 if where == "requeue" else 0)


def client(folder: Path, *kinds: str, t: float = 10.0) -> None:
    """Events of clients a second apart; `intent 1` is one of submission 1."""
    (folder / "events").mkdir(exist_ok=True)
    with (folder / "events" / "client-here-1.jsonl").open("a") as file:
        for number, words in enumerate(kinds):
            kind, _, submission = words.partition(" ")
            which = {"submission": int(submission), "attempt": 1} if submission else {}
            file.write(json.dumps({"v": 1, "t": t + number, "type": kind} | which) + "\n")


@pytest.mark.parametrize("where", ["requeue", "new-job"])
def test_a_run_that_somebody_has_cancelled_does_not_go_on_though_slurm_knows_nothing_of_that(
    site: Site, go: Go, tmp_path: Path, where: str
) -> None:
    """As after a client that was killed between its word and SLURM's."""
    client(tmp_path, "intent", "submitted", "cancel")
    end = {"v": 1, "t": 5, "type": "attempt_ended", "attempt": 0, "class": "time-limit"}
    (tmp_path / "job.jsonl").write_text(json.dumps(end | {"retry": True, "message": "late"}) + "\n")
    assert go(where, lambda: None) == ["attempt_ended", "attempt_ended"]
    assert site.asked("sbatch") == site.asked("scontrol requeue") == 0
    last = json.loads((tmp_path / "job.jsonl").read_text().splitlines()[-1])
    assert (last["class"], last["retry"], last["attempt"]) == ("cancelled", False, 0)
    assert last["message"] == "it was cancelled; before that, late"


def test_a_cancel_stands_whatever_clocks_and_failed_resumptions_say(tmp_path: Path) -> None:
    client(tmp_path, "cancel")
    client(tmp_path, "intent", "submitted", t=100)  # of a host whose clock is ahead
    assert cancelled(tmp_path)
    client(tmp_path, "intent 1", "submit_failed 1", t=200)
    assert cancelled(tmp_path) and first_attempt(tmp_path) == 0
    client(tmp_path, "intent 2", t=300)
    assert not cancelled(tmp_path) and first_attempt(tmp_path) == 1


@pytest.mark.parametrize("t", [5.0, 500.0])
def test_a_cancel_is_of_the_submission_that_it_names_whatever_clocks_say(
    tmp_path: Path, t: float
) -> None:
    client(tmp_path, "intent", "submitted", "intent 1", "submitted 1", t=100)
    client(tmp_path, "cancel 0", t=t)
    assert not cancelled(tmp_path)
    client(tmp_path, "cancel 1", t=t)
    assert cancelled(tmp_path)
    client(tmp_path, "cancel_failed 0", t=t + 1)
    assert cancelled(tmp_path)
    client(tmp_path, "cancel_failed 1", t=t + 1)
    assert not cancelled(tmp_path)


@pytest.mark.parametrize("after", [("cancel_failed",), ("intent 1",)])
def test_a_cancel_that_failed_or_was_of_an_earlier_submission_holds_nothing_up(
    site: Site, go: Go, tmp_path: Path, after: tuple[str, ...]
) -> None:
    client(tmp_path, "intent", "submitted", "cancel", *after)
    site.answers(restarts=0, requeue=0)
    assert go("new-job", lambda: None) == ["submitted 8"]


def test_a_job_that_was_submitted_while_its_run_was_cancelled_is_ended(
    site: Site, go: Go, tmp_path: Path
) -> None:
    site.answers(restarts=0, requeue=0)
    client(tmp_path, "intent", "submitted")
    line = '{"v": 1, "t": 99, "type": "cancel"}'
    site.command("sbatch", f"echo '{line}' >> {tmp_path}/events/client-here-2.jsonl; echo 8")
    site.command("scancel", "")
    assert go("new-job", lambda: None) == ["submitted 8"]
    assert site.asked("scancel 8") == 1


@pytest.mark.parametrize("where", ["requeue", "new-job"])
def test_a_job_that_slurm_was_told_to_end_since_it_was_judged_does_not_come_back(
    site: Site, go: Go, where: str
) -> None:
    state = "JobId=7 JobState=COMPLETING Restarts=0 Requeue=1 TimeLimit=01:00:00 RunTime=00:01:00"
    site.command("scontrol", f'echo "{state}"')
    assert go(where, lambda: None) == []
    assert site.asked("sbatch") == site.asked("scontrol requeue") == 0


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


def fails_twice(*hosts: str) -> Past:
    return Past(failures=dict.fromkeys(hosts, 2), blamed=frozenset(hosts))


def excludes(site: Site, named: str, more: str = "ReqNodeList=(null)") -> None:
    job = f"JobId=7 JobState=RUNNING Partition=lab Restarts=0 Requeue=1 {more} ExcNodeList={named}"
    site.command("scontrol", f'[ "$2" = job ] && echo "{job}" || echo "$3" | tr , "\\n"')


@pytest.mark.parametrize(
    ("starts", "avoided"),
    [
        (["x9,r1,r2", "x9,r2", "x9"], ["x9", "r1", "r2"]),
        (["x9,r2", "x9"], ["x9", "r2"]),
        (["x9"], ["x9"]),
        (["nothing at all"], ["x9"]),
    ],
)
def test_hosts_that_failed_twice_are_avoided_as_far_as_the_job_could_start_without_them(
    site: Site, starts: list[str], avoided: list[str]
) -> None:
    """Whatever stands in the way: a reservation, a constraint, nodes that are drained."""
    script = site.folder / "job.sbatch"
    excludes(site, "x9")
    no = "echo 'allocation failure: Requested node configuration is not available' >&2; exit 1"
    yes = "|".join(f'"--test-only --exclude={hosts} {script}"' for hosts in starts)
    site.command("sbatch", f'case "$*" in {yes}) ;; *) {no};; esac')
    past = fails_twice("r1", "r2")
    assert exclusion(past, Allocation({"SLURM_JOB_ID": "7"}), script) == avoided


@pytest.mark.parametrize(
    ("named", "avoided"),
    [
        ("r1", ["r1", "x9"]),
        ('"r[1-3], x9"', ["r1", "x9"]),
        ("x9", ["x9"]),
        (None, ["x9"]),
        ("/home/ann/hosts", ["r1", "x9"]),
        ("r[a", ["x9"]),
        ("r[a-b]", ["r1", "x9"]),
    ],
)
def test_what_the_spec_excludes_stays_excluded_though_it_once_failed(
    site: Site, named: str | None, avoided: list[str]
) -> None:
    """And a host that was left out for its failures comes back once they are forgotten."""
    script = site.folder / "job.sbatch"
    line = "" if named is None else f"#SBATCH --exclude={named}\n"
    script.write_text(f"#!/bin/bash\n#SBATCH --nodes=1\n{line}\nset -e\n")
    excludes(site, "r1,x9")
    past = Past(failures={"r1": 1}, blamed=frozenset(["r1"]))
    assert exclusion(past, Allocation({"SLURM_JOB_ID": "7"}), script) == avoided


def test_a_host_that_the_spec_excludes_is_not_let_in_for_want_of_others(site: Site) -> None:
    script = site.folder / "job.sbatch"
    script.write_text("#!/bin/bash\n#SBATCH --exclude=r1\n")
    excludes(site, "r1")
    no = "echo 'allocation failure: Requested node configuration is not available' >&2; exit 1"
    site.command("sbatch", f'[ "$*" = "--test-only --exclude=r1 {script}" ] || {{ {no}; }}')
    past = fails_twice("r1", "r2")
    assert exclusion(past, Allocation({"SLURM_JOB_ID": "7"}), script) == ["r1"]


def test_where_slurm_does_not_say_whether_a_job_could_start_without_a_host_it_is_not_avoided(
    site: Site,
) -> None:
    script = site.folder / "job.sbatch"
    excludes(site, "x9")
    site.command("sbatch", SILENT)
    past = fails_twice("r1", "r2")
    assert exclusion(past, Allocation({"SLURM_JOB_ID": "7"}), script) == ["x9"]
    assert site.asked("sbatch") == 1, "a silent SLURM is not asked for each of them"
    site.falls_silent()
    assert exclusion(past, Allocation({"SLURM_JOB_ID": "7"}), script) is None, "what the spec says"


UP = ("n2|allocated|8|100|gpu:8|new", "r1|idle|8|100|gpu:8|new", "r2|mixed|8|100|gpu:8|new")


@pytest.mark.parametrize(
    ("asks", "third", "avoided"),
    [
        ("ReqNodeList=(null)", "n3|idle|8|100|gpu:8|new", ["r1", "r2"]),
        ("ReqNodeList=(null)", "n3|completing+|8|100|gpu:8|new", ["r1", "r2"]),
        ("ReqNodeList=(null)", "n3|down*|8|100|gpu:8|new", ["r2"]),
        ("ReqNodeList=(null)", "n3|draining|8|100|gpu:8|new", ["r2"]),
        ("ReqNodeList=(null)", "n3|idle|8|100|gpu:4|new", ["r2"]),
        ("ReqNodeList=(null)", "x9|idle|8|100|gpu:8|new", ["r2"]),
        ("ReqNodeList=(null)", "sinfo: damaged", ["r2"]),
        ("ReqNodeList=n[2-3],r[1-2]", "n3|idle|8|100|gpu:8|new", []),
        ("ReqNodeList=(null) Reservation=ours", "n3|idle|8|100|gpu:8|new", []),
    ],
)
def test_where_slurm_takes_no_job_at_all_hosts_that_failed_are_avoided_as_far_as_others_suffice(
    site: Site, capfd: pytest.CaptureFixture[str], asks: str, third: str, avoided: list[str]
) -> None:
    """A person may have submitted as many jobs as they may, or a node may submit none."""
    script = site.folder / "job.sbatch"
    script.write_text("#SBATCH --exclude=x9\n")
    excludes(site, "x9", asks)
    site.command("sbatch", "echo 'sbatch: error: Access/permission denied' >&2; exit 1")
    rows = "\n".join([*UP, third])
    site.command("sinfo", f"echo '{rows}'")
    allocation = Allocation({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "r1,n2"})
    assert exclusion(fails_twice("r1", "r2"), allocation, script) == ["x9", *avoided]
    assert site.asked("sbatch") == 2, "a no that says nothing of hosts is not asked for again"
    told = capfd.readouterr().err
    assert "takes none like it (sbatch: error: Access/permission denied)" in told
    kept = f"it is kept away from {', '.join(avoided)}: other" if avoided else "may run on r1, r2"
    assert kept in told


def test_where_slurm_takes_no_job_at_all_and_shows_no_nodes_no_host_is_avoided(site: Site) -> None:
    script = site.folder / "job.sbatch"
    script.write_text("")
    excludes(site, "(null)")
    site.command("sbatch", "echo 'Access/permission denied' >&2; exit 1")
    site.command("sinfo", SILENT)
    allocation = Allocation({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "r1"})
    assert exclusion(fails_twice("r1"), allocation, script) == []


def test_where_the_second_question_is_not_answered_no_host_is_avoided(site: Site) -> None:
    script = site.folder / "job.sbatch"
    script.write_text("")
    excludes(site, "(null)")
    no = "echo 'Requested node configuration is not available' >&2; exit 1"
    site.command("sbatch", f'case "$*" in *--exclude*) {no};; *) {SILENT};; esac')
    allocation = Allocation({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "r1"})
    assert exclusion(fails_twice("r1", "r2"), allocation, script) == []
    assert site.asked("sbatch") == 2
