"""SLURM: submission through submitit, everything else through SLURM's own commands."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import SchedulerUnreachable, UserError
from orchestrator.runs.array import element_of, job_name
from orchestrator.schedulers import slurm_query
from orchestrator.schedulers.base import JobInfo
from orchestrator.schedulers.environment import cleaned_os_environ
from orchestrator.schedulers.slurm_command import (
    ask,
    is_unreachable,
    missing,
    ping,
    sentence,
    unreachable,
)
from orchestrator.schedulers.slurm_refusal import refusal

if TYPE_CHECKING:  # `ptx status` asks for states here, and needs none of pydantic
    from orchestrator.plan.plan import Plan, Target
    from orchestrator.render.bundle import Bundle, BundleFile
    from orchestrator.runs.layout import RunLayout
    from orchestrator.spec.job import JobSpec

SCRIPT = "job.sbatch"
ARRAY_SCRIPT = "array.sbatch"
"""Of all elements; in the bundle of the first."""


class Slurm:
    name = "slurm"

    def __init__(self) -> None:
        self._arrays: dict[str, dict[int, str]] = {}
        """What was found of each array, by element."""

    def target(self, spec: JobSpec) -> Target:  # noqa: ARG002
        """A login node knows nothing of the compute nodes' GPUs."""
        from orchestrator.plan.plan import Target

        return Target(sys.executable, Path.cwd(), gpus=0, cpus=os.cpu_count() or 1)

    def render(self, spec: JobSpec, plan: Plan) -> tuple[BundleFile, ...]:
        from orchestrator.render.bundle import BundleFile
        from orchestrator.render.sbatch import job_sbatch

        return (BundleFile(SCRIPT, job_sbatch(spec, plan)),)

    def render_array(self, spec: JobSpec, plan: Plan, name: str, elements: str) -> BundleFile:
        from orchestrator.render.bundle import BundleFile
        from orchestrator.render.sbatch import array_sbatch

        return BundleFile(ARRAY_SCRIPT, array_sbatch(spec, plan, name, elements))

    def submit_argv(self, layout: RunLayout, script: str = SCRIPT) -> tuple[str, ...]:
        return ("sbatch", "--parsable", str(layout.bundle / script))

    def check(self) -> None:
        ping()

    def submit(self, bundle: Bundle, layout: RunLayout) -> str:  # noqa: ARG002
        """Raises SubmissionRefused with sbatch's own sentence, or SchedulerUnreachable."""
        return self._submit(layout, SCRIPT)

    def submit_array(self, first: RunLayout, array: str) -> str:
        """The number that all elements have in common; raises as `submit`."""
        return self._submit(first, ARRAY_SCRIPT, array).partition("_")[0]

    def _submit(self, layout: RunLayout, script: str, array: str = "") -> str:
        try:
            return self._sbatch(layout, script)
        except SchedulerUnreachable:
            # "Socket timed out" comes also after the controller took the job.
            from orchestrator.runs.events import read_events
            from orchestrator.runs.reconcile import known_jobs

            with contextlib.suppress(SchedulerUnreachable):
                job_id = self.find(layout.run_id, array)
                if job_id and job_id not in known_jobs(read_events(layout)):
                    return job_id
            raise

    def _sbatch(self, layout: RunLayout, script: str) -> str:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from orchestrator.schedulers.slurm_executor import ScriptExecutor

        argv = self.submit_argv(layout, script)
        # submitit prints what sbatch said besides raising it.
        quiet = contextlib.redirect_stderr(io.StringIO())
        with (
            tempfile.TemporaryDirectory(prefix="ptx-") as folder,
            cleaned_os_environ(),
            _umask_of(layout.root),
            quiet,
        ):
            try:
                executor = ScriptExecutor(Path(folder), layout.bundle / script, argv)
            except RuntimeError as error:  # how submitit says that there is no srun
                raise missing("srun") from error
            try:
                return executor.submit_script()
            except (FileNotFoundError, PermissionError) as error:
                raise missing(argv[0]) from error
            except FailedSubmissionError as error:
                raise unreachable(str(error)) from error
            except FailedJobError as error:
                said = str(error)
                if is_unreachable(said):
                    raise unreachable(sentence(said)) from error
                raise refusal(said) from error

    def cancel(self, layout: RunLayout, job_id: str) -> None:
        """Raises UserError where SLURM will not let this person end the job."""
        ping()
        # By name too: on another cluster, or a new one, this number may be another job's.
        name = job_name(layout.run_id, job_id)
        held = "_" in job_id and _single_out(name, job_id)
        answer = ask(["scancel", f"--name={name}", job_id])
        gone = ("Invalid job id", "already completing or completed", "No active jobs match")
        if answer.code != 0 and not any(word in answer.err for word in gone):
            if held:
                ask(["scontrol", "release", job_id])
            raise UserError(
                f"SLURM did not cancel job {job_id}: {sentence(answer.err)}",
                hint="only the job's owner and the site's operators may cancel it",
            )

    def find(self, run_id: str, array: str = "") -> str | None:
        if not array:
            return slurm_query.find(run_id)
        if array not in self._arrays:  # asked for each of a thousand elements
            self._arrays[array] = slurm_query.find_elements(array)
        element = element_of(run_id)
        return self._arrays[array].get(element.number) if element else None

    def living(self, run_id: str, ended: str | None) -> str | None:
        return slurm_query.living(run_id, ended)

    def query(self, jobs: Mapping[str, RunLayout]) -> Sequence[JobInfo]:
        names = {job_id: job_name(run.run_id, job_id) for job_id, run in jobs.items()}
        return slurm_query.query(names, lambda job_id: _may_have_begun(jobs[job_id]))


def _single_out(array: str, job_id: str) -> bool:
    """Make an element that waits a job by itself, by holding it: elements that wait are one job to
    scancel's --name. Raises UserError where SLURM does not do that."""
    for _ in range(2):
        which = [f"--name={array}", f"--jobs={job_id}"]
        waits = ask(["squeue", "-h", "-r", "--states=PENDING", *which, "-o", "%i"])
        if waits.code != 0 and "Invalid job id" not in waits.err:
            # Whoever takes that for "it does not wait" ends all elements that do.
            raise unreachable(sentence(waits.err) or f"squeue ended with {waits.code}")
        if waits.out.strip() != job_id:
            return False
        answer = ask(["scontrol", "hold", job_id])
        if answer.code == 0:
            return True  # else it may have begun just now
    raise UserError(
        f"SLURM did not cancel job {job_id}: {sentence(answer.err)}",
        hint=f"`scancel {job_id}` ends it without ptx",
    )


def _may_have_begun(run: RunLayout) -> bool:
    """What others' jobs do may be hidden from this person, whatever squeue answers."""
    try:
        return run.attempt(0).exists() or run.root.stat().st_uid != os.getuid()
    except OSError:
        return True


@contextlib.contextmanager
def _umask_of(folder: Path) -> Iterator[None]:
    """As private as the run: SLURM makes the job's output file with the umask of its sbatch."""
    shared = folder.stat().st_mode & 0o020
    before = os.umask(0o007 if shared else 0o077)
    try:
        yield
    finally:
        os.umask(before)
