"""The `#SBATCH` lines of a job."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.errors import UserError
from orchestrator.plan.plan import Plan
from orchestrator.render.quoting import Shell, refuse_control_characters
from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import mebibytes, seconds

Option = tuple[str, "str | int | bool"]

_OWNED = {
    "job-name",
    "comment",
    "no-kill",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "output",
    "error",
} | {
    "open-mode",
    "export",
    "signal",
    "array",
    "wrap",
    "wait",
    "parsable",
    "input",
    "get-user-env",
}


def header(options: list[Option]) -> list[Shell]:
    return [sbatch_line(name, value) for name, value in options if value is not False]


def sbatch_line(name: str, value: str | int | bool) -> Shell:
    """One `#SBATCH` line; true is a bare flag.

    sbatch splits such a line at blanks, takes `#` for a comment and knows quotes and backslash,
    so a value with any of these goes into double quotes with both escaped.
    """
    if value is True:
        return Shell(f"#SBATCH --{name}")
    text = refuse_control_characters(str(value))
    if any(character in text for character in " \"'#\\`$"):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return Shell(f"#SBATCH --{name}={text}")


def job_options(spec: JobSpec, plan: Plan, *, spare: int = 0) -> Iterator[Option]:
    """What every sbatch script of this plan asks for, with `spare` more nodes. Raise UserError for
    contradictions."""
    yield from _size(spec, plan, spare)
    yield from _place(spec)
    yield from _more(spec)


def _size(spec: JobSpec, plan: Plan, spare: int) -> Iterator[Option]:
    yield "nodes", plan.nodes + spare
    yield "ntasks-per-node", 1
    if spec.resources.cpus_per_task is not None:
        yield "cpus-per-task", spec.resources.cpus_per_task
    yield from _gpus(spec, plan)
    yield from _memory(spec, plan)
    if spec.resources.time_limit is not None:
        yield "time", clock(seconds(spec.resources.time_limit))


def _gpus(spec: JobSpec, plan: Plan) -> Iterator[Option]:
    flag, kind, count = spec.slurm.gpu_flag, spec.slurm.gpu_type, plan.gpus_per_node
    if count == 0 or flag == "none":
        return
    typed = f"{kind}:{count}" if kind else str(count)
    # With one task a node, GPUs per task are GPUs per node.
    yield flag, f"gpu:{typed}" if flag == "gres" else typed


def _memory(spec: JobSpec, plan: Plan) -> Iterator[Option]:
    flag, memory = spec.slurm.memory_flag, spec.resources.memory
    if memory is None or flag == "none":
        return
    shares = {
        "mem": (1, ""),
        "mem-per-cpu": (spec.resources.cpus_per_task, "resources.cpus_per_task"),
        "mem-per-gpu": (plan.gpus_per_node, "GPUs in resources.gpus_per_node"),
    }
    share, missing = shares[flag]
    if not share:
        raise UserError(
            f"slurm.memory_flag is {flag}, which needs {missing} to divide resources.memory by",
            hint=f"set {missing}, or choose `memory_flag: mem`",
        )
    yield flag, f"{-(-mebibytes(memory) // share)}M"


def _place(spec: JobSpec) -> Iterator[Option]:
    slurm = spec.slurm
    named = {
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "nodelist": slurm.nodelist,
        "exclude": slurm.exclude,
        "reservation": slurm.reservation,
        "wckey": slurm.wckey,
    }
    yield from ((name, value) for name, value in named.items() if value is not None)
    if slurm.exclusive:
        yield "exclusive", True


def _more(spec: JobSpec) -> Iterator[Option]:
    for name, value in spec.slurm.options.items():
        if name in _OWNED:
            raise UserError(
                f"slurm.options sets {name}, which ptx sets itself",
                hint=f"leave {name} out of slurm.options",
            )
        yield name, value


def clock(total: int) -> str:
    """Seconds as SLURM's D-HH:MM:SS."""
    minutes, secs = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{secs:02}"
