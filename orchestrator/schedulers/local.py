"""This machine as a scheduler: one detached supervisor a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.errors import SchedulerUnreachable, UserError
from orchestrator.plan.plan import Plan, Target
from orchestrator.render.bundle import Bundle, BundleFile
from orchestrator.runs.events import Event, read_events
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import Process, alive, host_name
from orchestrator.runs.submissions import current
from orchestrator.schedulers.base import JobInfo, JobState
from orchestrator.spec.job import JobSpec

# Neither the folder it starts in (-P) nor a PYTHONPATH that holds an `orchestrator` of its own
# may stand before ptx; the rest of PYTHONPATH stays, pynvml may be there, and reaches the ranks.
# ROOT may be site-packages, which must not stand before the standard library either: it is taken
# out again as soon as the package is known.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import orchestrator; del sys.path[0]; "
    "from orchestrator.schedulers.supervisor import main; main()"
)
_ROOT = Path(orchestrator.__file__).resolve().parent.parent


class Local:
    name = "local"

    def target(self, spec: JobSpec) -> Target:
        from orchestrator.devices.cpus import cpu_count

        gpus = 0 if spec.resources.gpus_per_node == 0 else _visible_gpus()
        return Target(python=sys.executable, workdir=Path.cwd(), gpus=gpus, cpus=cpu_count())

    def render(self, spec: JobSpec, plan: Plan) -> tuple[BundleFile, ...]:  # noqa: ARG002
        return ()

    def submit_argv(self, layout: RunLayout) -> tuple[str, ...]:
        return (sys.executable, "-P", "-c", _START, str(_ROOT), str(layout.root))

    def check(self) -> None:
        """This machine is always there."""

    def submit(self, bundle: Bundle, layout: RunLayout) -> str:
        """Start the supervisor and wait until it has recorded itself.

        Raises UserError with the supervisor's own words where it refuses, and
        SchedulerUnreachable where it ended without any.
        """
        answer = _start(bundle.submit_argv, layout)
        if "error" in answer:
            raise UserError(answer["error"], hint=answer["hint"])
        if "job_id" not in answer:
            raise SchedulerUnreachable(
                "The supervisor of the run ended before it began.",
                hint=f"See {layout.scheduler_log}.",
            )
        return str(answer["job_id"])

    def cancel(self, layout: RunLayout, job_id: str) -> None:  # noqa: ARG002
        """SIGTERM to the supervisor, which ends agent and ranks; where somebody has killed it
        together with the agent, end here what they could not. Raises UserError where the run is
        another machine's or another user's."""
        process = _supervisor(read_events(layout))
        if process is None:
            return
        living = alive(process)
        if living is None:
            raise _out_of_reach(layout.run_id, process.host)
        if living:
            _terminate(process, layout)
        else:
            from orchestrator.schedulers.local_agent import end_leftovers

            end_leftovers(layout, Plan.grace_seconds)

    def living(self, run_id: str, ended: str | None) -> str | None:  # noqa: ARG002
        """None: a run's events name the process of its supervisor, and that was looked at."""
        return None

    def find(self, run_id: str, array: str = "") -> str | None:  # noqa: ARG002
        """Among this user's processes here: a supervisor's last argument is its run folder."""
        from orchestrator.schedulers.supervisor import local_job_id

        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and _supervises(entry, run_id):
                return local_job_id(int(entry.name))
        return None

    def query(self, jobs: Mapping[str, RunLayout]) -> Sequence[JobInfo]:
        return [_info(job_id, current(read_events(layout))) for job_id, layout in jobs.items()]


def _visible_gpus() -> int:
    from orchestrator.devices.nvml import inventory
    from orchestrator.devices.visible import visible

    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len(visible(inventory().gpus, setting))


def _start(argv: Sequence[str], layout: RunLayout) -> dict[str, Any]:
    """The supervisor's first line, or nothing where it ended without one."""
    shared = layout.root.stat().st_mode & 0o020
    log = os.open(layout.scheduler_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.fchmod(log, 0o660 if shared else 0o600)
        started = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env=_environment(),
            start_new_session=True,  # out of reach of this terminal's Ctrl-C and hang-up
            check=False,
        )
    finally:
        os.close(log)
    answer: dict[str, Any] = json.loads(started.stdout or b"{}")
    return answer


def _environment() -> dict[str, str]:
    from orchestrator.schedulers.environment import clean_environment

    kept = {name: os.environ[name] for name in ("PTX_LEASES",) if name in os.environ}
    return clean_environment(os.environ) | kept


def _supervises(entry: Path, run_id: str) -> bool:
    try:
        if entry.stat().st_uid != os.geteuid():
            return False
        argv = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return False  # ended while we looked
    return _START.encode() in argv and Path(os.fsdecode(argv[-1])).name == run_id


def _supervisor(events: Sequence[Event]) -> Process | None:
    for event in reversed(events):
        if event.type == "supervisor_started":
            return Process.of(event.fields)
    return None


def _out_of_reach(run_id: str, host: str) -> UserError:
    if host == host_name():
        return UserError(
            f"{run_id} runs in another container of {host}.",
            hint=f"Type `ptx cancel {run_id}` in that container.",
        )
    return UserError(
        f"{run_id} runs on {host}, and this is {host_name()}.",
        hint=f"Type `ptx cancel {run_id}` on {host}.",
    )


def _terminate(process: Process, layout: RunLayout) -> None:
    try:
        os.kill(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # ended by itself since we looked
    except PermissionError as error:
        raise UserError(
            f"{layout.run_id} belongs to another user, who alone can cancel it."
        ) from error


def _info(job_id: str, events: Sequence[Event]) -> JobInfo:
    """Whether the job is there; what happened inside is not the supervisor's to say."""
    process = _supervisor(events)
    if process is None:
        return JobInfo(job_id, JobState.UNKNOWN, "its supervisor left no record")
    latest = {event.type: event for event in events}
    if ended := latest.get("supervisor_ended"):
        code = ended.integer("rc", 1)
        return JobInfo(job_id, _final(code, "job_started" in latest), f"exit code {code}")
    living = alive(process)
    if living is None:
        return JobInfo(job_id, JobState.UNKNOWN, f"runs on {process.host}")
    if not living:
        return JobInfo(job_id, JobState.UNKNOWN, "its supervisor is gone")
    waiting = latest.get("waiting_for_gpus")
    if waiting and "gpus_bound" not in latest:
        free, wanted = waiting.integer("free"), waiting.integer("wanted")
        return JobInfo(job_id, JobState.PENDING, f"{free} of {wanted} GPUs free")
    return JobInfo(job_id, JobState.RUNNING)


def _final(code: int, started: bool) -> JobState:
    if code == 0:
        return JobState.COMPLETED
    return JobState.FAILED if started else JobState.CANCELLED
