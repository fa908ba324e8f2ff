"""sbatch options that repeat or contradict what ptx sends."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import seconds
from orchestrator.spec.words import shown

_INSTEAD = {
    "nodes": "use resources.nodes",
    "ntasks": "use resources: ptx starts one task a node",
    "ntasks-per-node": "use resources.gpus_per_node: ptx starts one task a node",
    "cpus-per-task": "use resources.cpus_per_task",
    "time": "use resources.time_limit",
    "job-name": "use name",
    "output": "ptx writes it to the run folder; see `ptx logs`",
    "error": "ptx writes it to the run folder; see `ptx logs`",
    "signal": "use slurm.signal_before",
    "export": "use env",
    "export-file": "use env and secrets",
    "get-user-env": "use env and setup",
    "comment": "ptx keeps the run id there",
    "chdir": "use workdir",
    "wrap": "use entrypoint",
    "parsable": "ptx reads sbatch's answer itself",
    "test-only": "use `ptx submit --dry-run`",
    "wait": "use `ptx wait`",
    "array": "use `ptx submit --array N`: each element is a run of its own",
    "partition": "use slurm.partition",
    "account": "use slurm.account",
    "qos": "use slurm.qos",
    "constraint": "use slurm.constraint",
    "nodelist": "use slurm.nodelist",
    "exclude": "use slurm.exclude",
    "reservation": "use slurm.reservation",
    "exclusive": "use slurm.exclusive",
    "wckey": "use slurm.wckey",
}
_GPU_OPTIONS = ("gres", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
_MEMORY_OPTIONS = ("mem", "mem-per-cpu", "mem-per-gpu")


def owned_options(spec: JobSpec, _: Context) -> Iterator[Finding]:
    for option in spec.slurm.options:
        if instead := _INSTEAD.get(option):
            yield _option(option, f"--{option} is not yours to give in slurm.options", instead)


def gpu_options(spec: JobSpec, _: Context) -> Iterator[Finding]:
    flag = spec.slurm.gpu_flag
    if flag == "none":
        return
    for option in _GPU_OPTIONS:
        value = spec.slurm.options.get(option)
        if value is None or (option == "gres" != flag and "gpu" not in str(value)):
            continue
        yield _option(
            option,
            f"--{option} stands beside the --{flag} that ptx sends for resources.gpus_per_node",
            f"remove it, or write `gpu_flag: {option}`"
            if option in ("gpus-per-node", "gpus-per-task")
            else "remove it, or write `gpu_flag: none` and ask for the GPUs here yourself",
        )


def memory_options(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.slurm.memory_flag == "none":
        return
    for option in _MEMORY_OPTIONS:
        if option in spec.slurm.options:
            yield _option(
                option,
                f"--{option} stands beside the --{spec.slurm.memory_flag} that ptx sends for "
                f"resources.memory",
                f"use resources.memory with `memory_flag: {option}`",
            )


def option_values(spec: JobSpec, _: Context) -> Iterator[Finding]:
    for option, value in spec.slurm.options.items():
        if value is False:
            yield _option(
                option,
                f"`{option}: false` says nothing: an option is there or it is not",
                "remove the line",
            )


def gpu_type_without_flag(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.slurm.gpu_type is not None and spec.slurm.gpu_flag == "none":
        yield Finding(
            ("slurm", "gpu_type"),
            f"gpu_type is {shown(spec.slurm.gpu_type)}, and `gpu_flag: none` asks for no GPUs",
            "choose another gpu_flag, or remove gpu_type",
        )


def memory_share(spec: JobSpec, _: Context) -> Iterator[Finding]:
    resources, flag = spec.resources, spec.slurm.memory_flag
    if spec.scheduler != "slurm" or resources.memory is None:
        return
    if flag == "mem-per-cpu" and resources.cpus_per_task is None:
        needed = "resources.cpus_per_task"
    elif flag == "mem-per-gpu" and resources.gpus_per_node == 0:
        needed = "resources.gpus_per_node above 0"
    else:
        return
    yield Finding(
        ("slurm", "memory_flag"),
        f"{flag} divides resources.memory, and needs {needed} for that",
        "set it, or write `memory_flag: mem`",
    )


def warning_before_start(spec: JobSpec, _: Context) -> Iterator[Finding]:
    limit, before = spec.resources.time_limit, spec.slurm.signal_before
    if spec.scheduler != "slurm" or limit is None or before is None:
        return
    if seconds(limit) <= before:
        yield Finding(
            ("resources", "time_limit"),
            f"the time limit is {seconds(limit)} s, and the warning comes "
            f"{before} s before its end: at once",
            "raise time_limit, or lower slurm.signal_before",
        )


def one_core_by_default(spec: JobSpec, _: Context) -> Iterator[Finding]:
    """A task without --cpus-per-task gets one core, unless the site gives cores with GPUs."""
    resources = spec.resources
    gpus = 0 if resources.gpus_per_node == "auto" else resources.gpus_per_node
    ranks = gpus or resources.procs_per_node or 1
    told = resources.cpus_per_task is not None or spec.slurm.exclusive
    if spec.scheduler != "slurm" or told or ranks == 1:
        return
    yield Finding(
        ("resources",),
        f"SLURM gives a task one CPU core unless told otherwise, and here {ranks} ranks share it",
        "set resources.cpus_per_task to the cores of a node's ranks together, or slurm.exclusive",
        warning=True,
    )


def _option(option: str, message: str, help_: str) -> Finding:
    return Finding(("slurm", "options", option), message, help_, "owned-option", at_key=True)
