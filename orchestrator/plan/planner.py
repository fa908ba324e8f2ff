"""From spec and target to the plan. Pure: no clock, no disk, no environment."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.plan.entrypoint import entrypoint_argv
from orchestrator.plan.paths import absolute
from orchestrator.plan.plan import PLAN_VERSION, Plan, Target
from orchestrator.plan.restart import restart_policy
from orchestrator.spec.job import JobSpec
from orchestrator.spec.quantities import seconds


def plan(
    spec: JobSpec,
    spec_path: Path,
    target: Target,
    run_id: str,
    run_dir: Path,
    boolean_args: frozenset[str] = frozenset(),
    resume_from: dict[str, int] | None = None,
) -> Plan:
    """Raise UserError where the numbers of the spec do not go together on this target.

    `boolean_args` names the entrypoint's arguments that are switched off with `--no-name`.
    """
    spec_dir = absolute(target.workdir, spec_path).parent
    gpus = _gpus_per_node(spec, target)
    procs = gpus or spec.resources.procs_per_node or 1
    world_size = spec.resources.nodes * procs
    data_parallel = _data_parallel_size(spec, world_size)
    entrypoint = spec.entrypoint
    return Plan(
        version=PLAN_VERSION,
        run_id=run_id,
        run_dir=str(run_dir),
        name=spec.name,
        scheduler=spec.scheduler,
        launcher=spec.launcher.name,
        nodes=spec.resources.nodes,
        procs_per_node=procs,
        gpus_per_node=gpus,
        world_size=world_size,
        cpus_per_proc=_cpus_per_proc(spec, target, procs),
        data_parallel_size=data_parallel,
        global_batch=_global_batch(spec, data_parallel),
        python=spec.python or target.python,
        workdir=str(absolute(spec_dir, spec.workdir) if spec.workdir else target.workdir),
        entrypoint=entrypoint_argv(entrypoint, spec_dir, boolean_args),
        args=dict(entrypoint.args) if isinstance(entrypoint.args, dict) else {},
        rendezvous={
            "backend": spec.rendezvous.backend,
            "port": spec.rendezvous.port or None,
            "timeout": seconds(spec.rendezvous.timeout),
            "interface": spec.rendezvous.interface,
        },
        strategy=spec.strategy.model_dump(),
        training=spec.training.model_dump(),
        restart=restart_policy(spec),
        checkpoint=spec.checkpoint.model_dump(),
        logging=spec.logging.model_dump(),
        secrets=tuple(spec.secrets),
        group_shared=spec.share == "group",
        grace_seconds=seconds(spec.restart.grace) if spec.restart.grace else Plan.grace_seconds,
        resume_from=resume_from,
    )


def _gpus_per_node(spec: JobSpec, target: Target) -> int:
    gpus = spec.resources.gpus_per_node
    if gpus != "auto":
        return gpus
    if spec.scheduler == "local":
        return target.gpus
    raise UserError(
        f"resources.gpus_per_node is auto, but the machine where ptx is typed cannot know how "
        f"many GPUs a node of {spec.scheduler} has",
        hint="write the number, as `gpus_per_node: 8`, or 0 to train on CPU",
    )


def _data_parallel_size(spec: JobSpec, world_size: int) -> int:
    strategy = spec.strategy
    model_parallel = strategy.tensor_parallel * strategy.pipeline_parallel
    if world_size % model_parallel:
        raise UserError(
            f"{world_size} ranks cannot be split into groups of {model_parallel} "
            f"(tensor_parallel {strategy.tensor_parallel} x "
            f"pipeline_parallel {strategy.pipeline_parallel})",
            hint="choose nodes and GPUs so that their product is a multiple of it",
        )
    return world_size // model_parallel


def _global_batch(spec: JobSpec, data_parallel: int) -> int:
    training = spec.training
    per_rank = training.micro_batch * training.accumulation
    product = per_rank * data_parallel
    wanted = training.global_batch
    if wanted is not None and wanted != product:
        hint = f"write training.global_batch: {product}, or leave it out"
        if wanted % (training.micro_batch * data_parallel) == 0:
            accumulation = wanted // (training.micro_batch * data_parallel)
            hint = f"training.accumulation: {accumulation} gives {wanted}"
        raise UserError(
            f"training.global_batch is {wanted}, but micro_batch {training.micro_batch} x "
            f"accumulation {training.accumulation} x data-parallel size {data_parallel} "
            f"is {product}",
            hint=hint,
        )
    return product


def _cpus_per_proc(spec: JobSpec, target: Target, procs: int) -> int | None:
    if spec.resources.cpus_per_task is not None:
        return max(1, spec.resources.cpus_per_task // procs)
    if spec.scheduler == "local":
        return max(1, target.cpus // procs)
    return None
