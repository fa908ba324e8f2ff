"""What only the machine's own numbers can tell."""

from __future__ import annotations

from orchestrator.spec.checks.batch import batch_product
from orchestrator.spec.checks.finding import Finding
from orchestrator.spec.checks.strategy import split_in_groups
from orchestrator.spec.checks.world import world_size
from orchestrator.spec.job import JobSpec

# Beyond this gloo's ranks mostly wait for a core.
_RANKS_A_CORE = 8


def check_target(spec: JobSpec, gpus: int, cpus: int) -> list[Finding]:
    """`gpus` visible GPUs and `cpus` cores of this machine against a local spec."""
    if spec.scheduler != "local":
        return []
    findings: list[Finding] = []
    wanted = spec.resources.gpus_per_node
    if wanted == "auto":
        world = world_size(spec, gpus)
        findings += [*split_in_groups(spec, world), *batch_product(spec, world)]
    elif wanted > gpus:
        findings.append(
            Finding(
                ("resources", "gpus_per_node"),
                f"{wanted} GPUs are asked for, and this machine shows {gpus}",
                f"write `gpus_per_node: {gpus}`, or auto"
                if gpus
                else "write `gpus_per_node: 0` and `procs_per_node: 2` to train on CPU",
                "too-few-gpus",
            )
        )
    uses_cpu = wanted == 0 or (wanted == "auto" and gpus == 0)
    procs = spec.resources.procs_per_node or 1
    if uses_cpu and procs > cpus * _RANKS_A_CORE:
        findings.append(
            Finding(
                ("resources", "procs_per_node"),
                f"{procs} ranks are asked for, and this machine has {cpus} CPU cores",
                f"write `procs_per_node: {cpus}`",
                "too-few-cores",
            )
        )
    return findings
