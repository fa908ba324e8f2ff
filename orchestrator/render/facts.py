"""What the launcher is told of the plan."""

from __future__ import annotations

from launchers.facts import Facts
from orchestrator.plan.plan import Plan


def facts(plan: Plan, extra_args: tuple[str, ...] = ()) -> Facts:
    strategy, training = plan.strategy, plan.training
    name = strategy["name"]
    offload = strategy.get("offload")
    return Facts(
        run_id=plan.run_id,
        nodes=plan.nodes,
        procs_per_node=plan.procs_per_node,
        gpus_per_node=plan.gpus_per_node,
        strategy=name,
        sharding=strategy.get("sharding", "full"),
        zero_stage=strategy["stage"] if name == "zero" else 0,
        offload_optimizer=offload in (True, "optimizer", "all"),
        offload_parameters=offload in (True, "all"),
        precision=training["precision"],
        micro_batch=training["micro_batch"],
        accumulation=training["accumulation"],
        data_parallel_size=plan.data_parallel_size,
        clip_grad_norm=training["clip_grad_norm"],
        rdzv_backend=plan.rendezvous["backend"],
        rdzv_timeout=plan.rendezvous["timeout"],
        extra_args=extra_args,
    )
