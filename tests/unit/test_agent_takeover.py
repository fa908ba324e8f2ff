"""What a killed supervisor leaves to the next, and how the agents find that one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.slurm_site import SILENT, Site

from orchestrator.agent.lifeline import Anchor, Lifeline
from orchestrator.agent.takeover import Inheritance, inheritance


def started(attempt: int, job_id: str = "7", restarts: int = 1) -> dict[str, Any]:
    return {
        "type": "job_started",
        "t": 100.0 + attempt,
        "job_id": job_id,
        "restarts": restarts,
        "attempt": attempt,
        "nodes": ["a", "b"],
        "port": 4000,
    }


def ended(attempt: int) -> dict[str, Any]:
    return {"type": "attempt_ended", "attempt": attempt, "retry": True, "where": "allocation"}


def test_a_first_supervisor_inherits_nothing() -> None:
    assert inheritance([], "7", 0) is None


def test_another_start_of_the_job_or_another_job_leaves_nothing() -> None:
    assert inheritance([started(0, restarts=0)], "7", 1) is None
    assert inheritance([started(0, job_id="6")], "7", 1) is None
    old = {name: value for name, value in started(0).items() if name != "restarts"}
    assert inheritance([old], "7", 1) is None, "an event of an earlier ptx"


def test_a_job_of_the_same_number_that_an_earlier_submission_had_leaves_nothing() -> None:
    assert inheritance([started(0), ended(0)], "7", 1, 1) is None
    assert inheritance([started(0), ended(0), started(1)], "7", 1, 1) is not None


def test_of_the_attempts_in_this_allocation_the_newest_is_left() -> None:
    events = [started(0, restarts=0), started(1), ended(1), started(2)]
    assert inheritance(events, "7", 1) == Inheritance(2, ["a", "b"], 102.0, 1, 4000, None)
    events.append(ended(2))
    left = inheritance(events, "7", 1)
    assert left is not None
    assert left.end == ended(2)


def supervised(folder: Path) -> tuple[Site, dict[str, str]]:
    """A run on one node that completes at once, and the environment of its job 7."""
    site = Site(folder)
    node = {"v": 1, "t": 2, "type": "node_ended", "node": 0, "reason": "completed"}
    line = json.dumps(node | {"first_failure": None})
    site.command("srun", f"echo '{line}' > events/a00$PTX_ATTEMPT-node-0000.jsonl")
    site.command("sinfo", "echo 'a|allocated'")
    site.command(
        "scontrol",
        "case \"$*\" in 'show hostnames'*) echo a; exit;; 'show config') exit;; esac\n"
        'echo "JobId=7 JobState=RUNNING Restarts=$SLURM_RESTART_COUNT Requeue=1"',
    )
    restart = {"max": 3, "on": ["failed", "preempted", "node-failure"], "backoff": 0}
    plan = {"version": 1, "run_id": "x", "run_dir": str(folder), "group_shared": False}
    plan |= {"nodes": 1, "grace_seconds": 10, "restart": restart}
    (folder / "plan.json").write_text(json.dumps(plan))
    path = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "a", "SLURMD_NODENAME": "a"}
    return site, path | slurm


def supervise(folder: Path, env: dict[str, str], settings: str = "") -> int:
    argv = [sys.executable, "-c", settings + SUPERVISOR]
    with (folder / "scheduler.log").open("w") as log:
        done = subprocess.run(argv, env=env, cwd=folder, timeout=60, check=False, stderr=log)
    return done.returncode


SUPERVISOR = "from orchestrator.agent.job import run_job; exit(run_job('plan.json', ['srun']))"


def test_a_job_that_slurm_requeues_once_its_run_has_completed_begins_no_attempt(
    tmp_path: Path,
) -> None:
    """As one that is preempted while its logs are packed: all was said by then."""
    site, env = supervised(tmp_path)
    (tmp_path / "secrets").touch()
    for restarts in ("0", "1"):
        assert supervise(tmp_path, env | {"SLURM_RESTART_COUNT": restarts}) == 0
        assert site.asked("srun") == 1
    assert not (tmp_path / "secrets").exists()
    told = (tmp_path / "events/job.jsonl").read_text().splitlines()
    assert [json.loads(line)["type"] for line in told] == ["job_started", "attempt_ended"]


RESUMED = [("intent", None), ("submitted", "8")]


@pytest.mark.parametrize(
    ("resumption", "restarts", "newest", "begins"),
    [
        (RESUMED, 1, 0, False),
        (RESUMED[:1], 1, 0, False),  # its client is at work, or is dead
        ([], 1, 0, True),
        ([*RESUMED[:1], ("submit_failed", None)], 1, 0, True),
        (RESUMED, 0, 0, True),  # another cluster's number
        ([*RESUMED[:1], ("submitted", "7")], 1, 0, True),
        (RESUMED[:1], 1, 1, True),  # of the resumption itself, whose client has died
    ],
)
def test_a_job_of_an_earlier_submission_that_is_requeued_leaves_the_run_to_the_newest_one(
    tmp_path: Path,
    resumption: list[tuple[str, str | None]],
    restarts: int,
    newest: int,
    begins: bool,
) -> None:
    """As by `scontrol requeue`, beside the job that `ptx resume` has submitted."""
    site, env = supervised(tmp_path)
    (tmp_path / "secrets").touch()
    (tmp_path / "events").mkdir()
    path = tmp_path / "events/job.jsonl"
    begun = [
        one | {"v": 1} for n in range(newest + 1) for one in (started(n, restarts=n), ended(n))
    ]
    path.write_text("".join(json.dumps(event | {"class": "failed"}) + "\n" for event in begun))
    for number in range(newest + 1):
        (tmp_path / "attempts" / f"{number:03d}").mkdir(parents=True)
    events = [{"v": 1, "t": 10, "type": "submitted", "job_id": "7"}]
    for kind, job in resumption:
        event = {"v": 1, "t": 20, "type": kind, "submission": 1, "attempt": 1, "job_id": job}
        events.append({name: value for name, value in event.items() if value is not None})
    (tmp_path / "events/resume-001.jsonl").write_text(
        "".join(json.dumps(event) + "\n" for event in events)
    )
    before = path.read_bytes()
    code = supervise(tmp_path, env | {"SLURM_RESTART_COUNT": str(restarts)})
    assert site.asked("srun") == begins
    assert code == (0 if begins else 1)
    if not begins:
        assert path.read_bytes() == before
        assert (tmp_path / "secrets").exists()
        assert site.asked("scontrol") == site.asked("sbatch") == 0


IMPATIENT = """
from orchestrator.agent import allocation, judgement, queue
allocation._TIMEOUT, judgement._SETTLES = 5, 0
judgement._SAYS_SO, judgement._PATIENCE, queue._INSISTS = -1, 0.5, 0
"""
NODE = {"v": 1, "t": 2, "type": "node_ended", "node": 0, "reason": "terminated"}


@pytest.mark.parametrize("silence", [SILENT, "exec sleep 20 >/dev/null 2>&1"])
@pytest.mark.parametrize("told", ["kill -TERM $PPID", ":"])
def test_a_run_whose_processes_were_told_to_end_while_slurm_is_silent_is_not_over(
    tmp_path: Path, silence: str, told: str
) -> None:
    """By somebody else, or by a SLURM that nobody hears of then."""
    site, env = supervised(tmp_path)
    site.command("srun", f"echo '{json.dumps(NODE)}' > events/a000-node-0000.jsonl\n{told}")
    site.command("scontrol", silence)
    hangs = "allocation._TIMEOUT = 0.2\n"
    assert supervise(tmp_path, env, IMPATIENT + hangs) == 1
    events = map(json.loads, (tmp_path / "events/job.jsonl").read_text().splitlines())
    kinds = {event["type"]: event for event in events}
    assert list(kinds) == ["job_started", "attempt_ended", "requeue"]
    end = kinds["attempt_ended"]
    assert (end["class"], end["retry"], end["where"]) == ("node-failure", True, "requeue")
    assert "SLURM does not say why" in end["message"]
    log = (tmp_path / "scheduler.log").read_text()
    assert "SLURM still does not answer" in log and "Traceback" not in log


def test_no_attempt_begins_beside_ranks_that_outlive_a_sigterm_and_slurms_silence(
    tmp_path: Path,
) -> None:
    """KillWait is over, and SLURM does not say at once that it ends nothing."""
    site, env = supervised(tmp_path)
    done = json.dumps(NODE | {"reason": "completed"})
    site.command(
        "srun",
        "[ $PTX_ATTEMPT = 0 ] || exit\nkill -TERM $PPID\nwhile ! [ -e spoke ]; do sleep 0.1; done\n"
        f"sleep 2\necho '{done}' > events/a000-node-0000.jsonl",
    )
    site.command(
        "scontrol",
        "case \"$*\" in 'show config') echo 'KillWait = 1 sec'; exit;; esac\n"
        f"echo >> asks; [ $(wc -l < asks) -ge 3 ] || {{ {SILENT}; }}\n"
        "echo 'JobId=7 JobState=RUNNING Restarts=0 Requeue=1'; touch spoke",
    )
    assert supervise(tmp_path, env, IMPATIENT + "judgement._PATIENCE = 60\n") == 0
    assert site.asked("srun") == 1


def test_a_lifeline_finds_the_supervisor_that_took_the_place_of_another() -> None:
    first = Anchor()
    line = Lifeline("127.0.0.1", first.port)
    first.serve()
    assert line.torn() == 0
    port = first.port
    close(first)
    assert _within(lambda: line.torn() > 0)
    assert not line.farewell(), "nobody heard it"
    second = Anchor(port)
    assert second.port == port
    assert _within(lambda: line.torn() == 0)
    close(second)
    assert _within(lambda: line.torn() > 0.5), "and counts from the last time"


def test_a_supervisor_gets_the_port_of_the_one_before_it_as_soon_as_that_is_free() -> None:
    first = Anchor()
    line = Lifeline("127.0.0.1", first.port)
    first.serve()
    port = first.port
    close(first)
    line.torn()
    with socket.create_server(("", port)):
        second = Anchor(port)
        second.serve()
        assert second.port != port
    second.serve()
    assert second.port == port
    assert _within(lambda: line.torn() == 0)
    close(second)


def test_a_port_that_agents_were_told_of_stays() -> None:
    with socket.create_server(("", 0)) as other:
        anchor = Anchor(other.getsockname()[1])
        told = anchor.stay()
    anchor.serve()
    assert anchor.port == told
    close(anchor)


def close(anchor: Anchor) -> None:
    """As the end of its process does."""
    for end in (anchor._listening, *anchor._connections):
        end.close()


def _within(look: Any, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
