"""How many ranks there are."""

from __future__ import annotations

from orchestrator.spec.job import JobSpec


def world_size(spec: JobSpec, local_gpus: int | None = None) -> int | None:
    """Ranks of the run; None while `auto` GPUs are not counted (`local_gpus`)."""
    gpus = spec.resources.gpus_per_node
    if gpus == "auto":
        if local_gpus is None:
            return None
        gpus = local_gpus
    return spec.resources.nodes * (gpus or spec.resources.procs_per_node or 1)


def model_parallel(spec: JobSpec) -> int:
    """Ranks that hold one copy of the model between them."""
    return spec.strategy.tensor_parallel * spec.strategy.pipeline_parallel
