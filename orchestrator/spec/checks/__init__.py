"""What fields say together. Each check is a small function in a table."""

from __future__ import annotations

from orchestrator.spec.checks import (
    batch,
    entrypoint,
    environment,
    launcher,
    logs,
    network,
    resources,
    restart,
    slurm,
    strategy,
)
from orchestrator.spec.checks.finding import Check, Context, Finding
from orchestrator.spec.checks.target import check_target

__all__ = ["CHECKS", "Check", "Context", "Finding", "check_target"]

_RANKS_OF_A_NODE = ("resources.gpus_per_node", "resources.procs_per_node")
_BATCH = ("training.micro_batch", "training.accumulation", "training.global_batch")

CHECKS: tuple[Check, ...] = (
    Check(entrypoint.exactly_one, ("entrypoint.script", "entrypoint.module", "entrypoint.command")),
    Check(entrypoint.script_exists, ("entrypoint.script",)),
    Check(entrypoint.module_is_a_name, ("entrypoint.module",)),
    Check(entrypoint.args_are_keys, ()),
    Check(resources.scheduler_is_known, ("scheduler",)),
    Check(resources.nodes_on_local, ("scheduler", "resources.nodes")),
    Check(resources.auto_gpus, ("scheduler", "resources.gpus_per_node")),
    Check(resources.one_rank_a_gpu, (*_RANKS_OF_A_NODE,)),
    Check(resources.cores_for_every_rank, (*_RANKS_OF_A_NODE, "resources.cpus_per_task")),
    Check(launcher.is_known, ("launcher.name",)),
    Check(launcher.owned_flags, ("launcher", "strategy")),
    Check(launcher.contradictions, ("launcher", "strategy")),
    Check(strategy.whole_groups, ("resources.nodes", *_RANKS_OF_A_NODE, "strategy")),
    Check(strategy.sequence_without_tensor, ("strategy",)),
    Check(strategy.offload_everything, ("strategy",)),
    Check(strategy.zero_with_parts, ("strategy",)),
    Check(strategy.offload_with_pipeline, ("strategy",)),
    Check(strategy.zero_offload_in_bf16, ("strategy", "training.precision")),
    Check(strategy.micro_batches_for_every_stage, ("strategy", "training.accumulation")),
    Check(strategy.local_sgd, ("strategy", "training.local_sgd")),
    Check(strategy.lora_with_tensor, ("strategy", "training.lora")),
    Check(
        strategy.compiled_and_recomputed,
        ("strategy", "training.compile", "training.activation_checkpointing"),
    ),
    Check(strategy.quantized_and_cut, (*_RANKS_OF_A_NODE, "strategy", "training.lora")),
    Check(
        strategy.eight_bit_optimizer,
        (*_RANKS_OF_A_NODE, "strategy", "training.optimizer.name"),
    ),
    Check(strategy.exponential_to_nothing, ("training.schedule",)),
    Check(strategy.lora_or_trainable, ("training.lora", "training.trainable")),
    Check(batch.product, ("resources.nodes", *_RANKS_OF_A_NODE, "strategy", *_BATCH)),
    Check(network.port_on_several_nodes, ("resources.nodes", "rendezvous.port")),
    Check(network.privileged_port, ("rendezvous.port",)),
    Check(network.ephemeral_port, ("rendezvous.port",)),
    Check(logs.cap_holds_parts, ("logging.rotate", "logging.max")),
    Check(environment.reserved_names, ()),
    Check(environment.secrets_in_env, ()),
    Check(environment.secrets_once, ()),
    Check(environment.restart_reasons_once, ()),
    Check(slurm.owned_options, ()),
    Check(slurm.gpu_options, ("slurm.gpu_flag",)),
    Check(slurm.memory_options, ("slurm.memory_flag",)),
    Check(slurm.option_values, ()),
    Check(slurm.gpu_type_without_flag, ("slurm.gpu_flag", "slurm.gpu_type")),
    Check(slurm.memory_share, ("scheduler", "slurm.memory_flag", "resources")),
    Check(
        slurm.warning_before_start,
        ("scheduler", "slurm.signal_before", "resources.time_limit"),
    ),
    Check(restart.spares_on_local, ("scheduler", "resources.spare_nodes")),
    Check(restart.budget_for_nothing, ("restart",)),
    Check(
        restart.no_warning,
        ("scheduler", "checkpoint.on_signal", "resources.time_limit"),
    ),
    Check(
        restart.warning_shorter_than_a_save,
        ("name", "scheduler", "checkpoint", "resources.time_limit", "slurm.signal_before"),
    ),
    Check(slurm.one_core_by_default, ("scheduler", *_RANKS_OF_A_NODE, "resources.cpus_per_task")),
)
