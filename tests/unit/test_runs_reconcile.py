"""What becomes of a submission whose client died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SchedulerUnreachable
from orchestrator.runs.events import ClientEvents, read_events
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import Process, alive, this_process
from orchestrator.runs.reconcile import reconcile


class Jobs:
    """A scheduler that knows these jobs by run id."""

    def __init__(self, **jobs: str) -> None:
        self.jobs = jobs
        self.asked = 0

    def find(self, run_id: str) -> str | None:
        self.asked += 1
        return self.jobs.get(run_id)


class Unreachable:
    def find(self, run_id: str) -> str | None:
        raise SchedulerUnreachable("no answer")


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    run = RunLayout(tmp_path / "run")
    run.events.mkdir(parents=True)
    return run


def intent(layout: RunLayout, **fields: Any) -> None:
    ClientEvents(layout).append("intent", scheduler="slurm", **fields)


def dead_client() -> dict[str, Any]:
    """A process that really lived, and is dead."""
    code = (
        "import json; from orchestrator.runs.process import this_process as p;"
        "print(json.dumps(vars(p())))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fields: dict[str, Any] = json.loads(told.stdout)
    return fields


def types(layout: RunLayout) -> list[str]:
    return [event.type for event in read_events(layout)]


def test_a_job_that_bears_the_tag_is_taken_up(layout: RunLayout) -> None:
    intent(layout, **dead_client())
    reconcile(layout, read_events(layout), Jobs(run="12"))
    assert types(layout) == ["intent", "submitted"]
    assert read_events(layout)[-1].text("job_id") == "12"


def test_a_submission_that_never_arrived_is_failed(layout: RunLayout) -> None:
    intent(layout, **dead_client())
    reconcile(layout, read_events(layout), Jobs())
    assert types(layout) == ["intent", "submit_failed"]


def test_a_living_client_is_left_alone(layout: RunLayout) -> None:
    intent(layout, **vars(this_process()))
    jobs = Jobs(run="12")
    assert reconcile(layout, read_events(layout), jobs) is None
    assert (types(layout), jobs.asked) == (["intent"], 0)


def test_a_submission_that_outlives_its_client_is_left_alone(layout: RunLayout) -> None:
    intent(layout, **dead_client())
    code = "import sys; print(flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code, str(layout.bundle / "job.sbatch")]
    sbatch = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sbatch.stdout is not None
    try:
        sbatch.stdout.readline()
        assert reconcile(layout, read_events(layout), Jobs()) is None
        assert types(layout) == ["intent"]
    finally:
        sbatch.communicate()
    reconcile(layout, read_events(layout), Jobs(run="12"))
    assert types(layout) == ["intent", "submitted"]


def test_the_client_of_another_host_is_never_called_dead(layout: RunLayout) -> None:
    intent(layout, host="elsewhere.example", boot_id="x", pid=1, start=1)
    assert reconcile(layout, read_events(layout), Jobs()) is None
    assert types(layout) == ["intent"]
    reconcile(layout, read_events(layout), Jobs(run="12"))
    assert types(layout) == ["intent", "submitted"]


@pytest.mark.parametrize("settled", ["submitted", "submit_failed", "job_started"])
def test_a_settled_submission_costs_no_question(layout: RunLayout, settled: str) -> None:
    intent(layout, **dead_client())
    ClientEvents(layout).append(settled, job_id="12")
    jobs = Jobs()
    reconcile(layout, read_events(layout), jobs)
    assert jobs.asked == 0


def resuming(layout: RunLayout, number: int = 1) -> None:
    """A run that was submitted and ended, and a client that died while it resumed it."""
    intent(layout, **dead_client())
    ClientEvents(layout).append("submitted", job_id="12")
    ClientEvents(layout).append("job_started", job_id="12", attempt=0)
    ClientEvents.claim(layout, number, scheduler="slurm", attempt=1, **dead_client())


def test_a_resumption_that_never_arrived_is_failed_and_the_old_job_is_not_its_own(
    layout: RunLayout,
) -> None:
    resuming(layout)
    reconcile(layout, read_events(layout), Jobs(run="12"))
    last = read_events(layout)[-1]
    assert (last.type, last.fields["submission"]) == ("submit_failed", 1)
    jobs = Jobs(run="12")
    reconcile(layout, read_events(layout), jobs)
    assert jobs.asked == 0


def test_the_job_of_a_resumption_whose_client_died_is_taken_up(layout: RunLayout) -> None:
    resuming(layout)
    reconcile(layout, read_events(layout), Jobs(run="13"))
    last = read_events(layout)[-1]
    assert (last.type, last.text("job_id"), last.fields["submission"]) == ("submitted", "13", 1)


def test_one_client_alone_gets_a_resumption(layout: RunLayout) -> None:
    resuming(layout)
    before = sorted(path.name for path in layout.events.iterdir())
    with pytest.raises(FileExistsError):
        ClientEvents.claim(layout, 1, **vars(this_process()))
    assert sorted(path.name for path in layout.events.iterdir()) == before


def test_a_scheduler_that_does_not_answer_settles_nothing(layout: RunLayout) -> None:
    intent(layout, **dead_client())
    with pytest.raises(SchedulerUnreachable):
        reconcile(layout, read_events(layout), Unreachable())
    assert types(layout) == ["intent"]


def test_a_pid_that_was_given_to_another_process_is_a_dead_one() -> None:
    me = this_process()
    assert alive(me) is True
    assert alive(Process(me.host, me.boot_id, me.pid, me.start - 1)) is False
    assert alive(Process(me.host, "another boot", me.pid, me.start)) is False
    assert alive(Process("elsewhere.example", me.boot_id, me.pid, me.start)) is None


def test_a_process_of_a_container_on_this_host_is_not_called_dead() -> None:
    me = this_process()
    assert alive(replace(me, pid_namespace="pid:[1]")) is None
    assert alive(replace(me, pid_namespace="")) is True
    assert Process.of(vars(me)) == me


def test_a_zombie_is_dead() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        me = this_process()
        assert Path(f"/proc/{pid}").exists()
        assert alive(Process(me.host, me.boot_id, pid, me.start)) is False
    finally:
        os.waitpid(pid, 0)
