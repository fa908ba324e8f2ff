"""Machines, and who hands them out."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.words import closest, listed, shown

# Asking the registry reads the metadata of every installed package.
_BUILT_IN = ("local", "slurm")


def scheduler_is_known(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if _is_known(spec.scheduler):
        return
    from orchestrator.schedulers import registry

    names = registry.names()
    match = closest(spec.scheduler, names)
    yield Finding(
        ("scheduler",),
        f"there is no scheduler {shown(spec.scheduler)}",
        f"did you mean {match}?" if match else f"write {listed(names)}",
        "unknown-scheduler",
    )


def _is_known(scheduler: str) -> bool:
    if scheduler in _BUILT_IN:
        return True
    from orchestrator.schedulers import registry

    return scheduler in registry.names()


def nodes_on_local(spec: JobSpec, _: Context) -> Iterator[Finding]:
    nodes = spec.resources.nodes
    if spec.scheduler == "local" and nodes > 1:
        yield Finding(
            ("resources", "nodes"),
            f"{nodes} nodes are asked for, and the scheduler is local: this machine is one node",
            "write `nodes: 1`, or `scheduler: slurm`",
        )


def auto_gpus(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.scheduler == "local" or spec.resources.gpus_per_node != "auto":
        return
    if _is_known(spec.scheduler):
        is_given = "resources" in spec.model_fields_set
        yield Finding(
            ("resources", "gpus_per_node") if is_given else ("scheduler",),
            f"resources.gpus_per_node is auto, and the machine where ptx is typed cannot know "
            f"how many GPUs a node of {spec.scheduler} has",
            "write the number, as `gpus_per_node: 8`, or 0 to train on CPU",
        )


def one_rank_a_gpu(spec: JobSpec, _: Context) -> Iterator[Finding]:
    gpus, procs = spec.resources.gpus_per_node, spec.resources.procs_per_node
    if gpus == "auto" or gpus == 0 or procs is None or procs == gpus:
        return
    yield Finding(
        ("resources", "procs_per_node"),
        f"procs_per_node is {procs} and gpus_per_node is {gpus}: with GPUs there is one rank a GPU",
        "leave procs_per_node out; it counts the ranks of a node without GPUs",
    )


def cores_for_every_rank(spec: JobSpec, _: Context) -> Iterator[Finding]:
    resources = spec.resources
    gpus = 0 if resources.gpus_per_node == "auto" else resources.gpus_per_node
    procs = gpus or resources.procs_per_node or 1
    if resources.cpus_per_task is not None and resources.cpus_per_task < procs:
        yield Finding(
            ("resources", "cpus_per_task"),
            f"{resources.cpus_per_task} CPU cores are shared by the {procs} ranks of a node: "
            f"less than one core a rank",
            f"cpus_per_task counts the cores of the whole node; write at least {procs}",
            warning=True,
        )
