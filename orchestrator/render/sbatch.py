"""job.sbatch: ptx's own text, from the first `#SBATCH` line to srun; and array.sbatch."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.errors import UserError
from orchestrator.plan.plan import Plan
from orchestrator.plan.restart import returns_by_slurm
from orchestrator.render.quoting import Shell, load_template
from orchestrator.render.sbatch_header import Option, header, job_options, sbatch_line
from orchestrator.runs.array import element_id
from orchestrator.spec.job import JobSpec
from orchestrator.spec.warning import warning_seconds


def job_sbatch(spec: JobSpec, plan: Plan) -> bytes:
    """Pure. Raise UserError for what sbatch cannot be told."""
    text = load_template("job.sbatch.j2").render(
        header=_header(spec, plan, plan.run_id, filename_pattern(plan.run_dir)),
        umask="007" if plan.group_shared else "077",
        run_dir=plan.run_dir,
        srun=srun_options(plan),
        python=plan.python,
    )
    return text.encode()


def array_sbatch(spec: JobSpec, plan: Plan, name: str, elements: str) -> bytes:
    """Of the array `name` whose elements are `elements`, as `0-7%2`; the plan is one element's.
    Pure. Raise UserError for what sbatch cannot be told."""
    root = plan.run_dir.rpartition("/")[0]
    before, after = element_id(name, "%a").split("%a")
    text = load_template("array.sbatch.j2").render(
        header=[
            *_header(spec, plan, name, f"{filename_pattern(root)}/{before}%a{after}"),
            sbatch_line("array", elements),
        ],
        before=f"{root}/{before}",
        after=f"{after}/bundle/job.sbatch",
    )
    return text.encode()


def _header(spec: JobSpec, plan: Plan, name: str, folder: str) -> list[Shell]:
    options: list[Option] = [
        ("job-name", name),
        ("comment", f"ptx:{name}"),
        *job_options(spec, plan, spare=spec.resources.spare_nodes),
        *_spares(spec),
        *_signal(spec),
        *_requeue(spec),
        ("output", f"{folder}/scheduler.log"),
        ("open-mode", "append"),
        ("export", "ALL"),
    ]
    return header(options)


def srun_options(plan: Plan) -> tuple[str, ...]:
    return (
        f"--nodes={plan.nodes}",
        f"--ntasks={plan.nodes}",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
        # The task holds all ranks of its node: bound to its share of one, they would crowd it.
        "--cpu-bind=none",
        "--mpi=none",
        "--export=ALL",
    )


def filename_pattern(path: str) -> str:
    """A path that sbatch reads as it is: `%` doubled.

    Raise UserError for a backslash, which switches sbatch's patterns off and then vanishes.
    """
    if "\\" in path:
        raise UserError(
            f"the run folder {path!r} has a backslash, which sbatch takes out of file names",
            hint="choose another folder with --runs",
        )
    return path.replace("%", "%%")


def _signal(spec: JobSpec) -> Iterator[Option]:
    if (before := warning_seconds(spec)) is not None:
        yield "signal", f"USR2@{before}"


def _spares(spec: JobSpec) -> Iterator[Option]:
    if spec.resources.spare_nodes:
        yield "no-kill", True  # a dead node ends the step, and the supervisor takes a spare one


def _requeue(spec: JobSpec) -> Iterator[Option]:
    if not {"requeue", "no-requeue"} & spec.slurm.options.keys():
        yield ("requeue" if returns_by_slurm(spec) else "no-requeue"), True
