"""The DeepSpeed configuration of a training plan, and the pairs that DeepSpeed cannot do."""

from __future__ import annotations

from typing import Any, Literal

import torch

from launchers.deepspeed_config import deepspeed_config
from launchers.facts import Facts
from orchestrator.spec.strategy import Zero
from orchestrator.spec.training import Training
from orchestrator.training.checkpoint.policy import Policy
from orchestrator.training.errors import NotSupported
from orchestrator.training.layout import layout_of
from orchestrator.training.plan import TrainingPlan

Precision = Literal["fp32", "bf16", "bf16-mixed", "fp16-mixed"]


def zero_strategy(plan: TrainingPlan) -> Zero:
    """The plan's strategy, which must be ZeRO; TypeError where it is not."""
    if not isinstance(plan.strategy, Zero):
        raise TypeError(f"the strategy is {plan.strategy.name}, not zero")
    return plan.strategy


def zero_config(plan: TrainingPlan) -> dict[str, Any]:
    """What `deepspeed.initialize` is given.

    Built anew from the plan and not read from the bundle's file: the micro batch and accumulation
    may have changed since that was written, to fit into memory.
    """
    strategy, training = zero_strategy(plan), plan.training
    config = deepspeed_config(
        Facts(
            run_id="",  # not part of the configuration
            nodes=plan.world_size // plan.procs_per_node,
            procs_per_node=plan.procs_per_node,
            gpus_per_node=plan.gpus_per_node,
            strategy="zero",
            zero_stage=strategy.stage,
            offload_optimizer=strategy.offload != "none",
            offload_parameters=strategy.offload == "all",
            precision=zero_precision(training),
            micro_batch=training.micro_batch,
            accumulation=training.accumulation,
            data_parallel_size=layout_of(plan, 0).data_size,
            clip_grad_norm=training.clip_grad_norm,
        )
    )
    # DeepSpeed clips at 1 where nothing is said.
    return {"gradient_clipping": 0.0} | config


def zero_precision(training: Training) -> Precision:
    """The precision that DeepSpeed is told. Adapters keep float32 weights and optimizer state on a
    bf16 base, as under the other strategies: rounded, their small updates would be lost."""
    if training.precision == "bf16" and training.lora is not None:
        return "bf16-mixed"
    return training.precision


def computed_in(training: Training) -> torch.dtype:
    """The format of the model's parameters; a mixed precision adds float32 master weights."""
    return _COMPUTED_IN[training.precision]


_COMPUTED_IN = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "bf16-mixed": torch.bfloat16,
    "fp16-mixed": torch.float16,
}


def refuse_wrong_pairs(plan: TrainingPlan) -> None:
    """Raise NotSupported, with the way out, for what DeepSpeed would refuse or do otherwise."""
    strategy, training = zero_strategy(plan), plan.training
    if strategy.tensor_parallel > 1 or strategy.sequence_parallel:
        raise NotSupported(
            "strategy zero cuts over all ranks, and tensor_parallel is "
            f"{strategy.tensor_parallel} (sequence_parallel: {strategy.sequence_parallel})",
            hint="use `strategy: fsdp` with tensor_parallel, or set tensor_parallel to 1",
        )
    if strategy.offload == "all" and strategy.stage != 3:
        raise NotSupported(
            f"strategy.offload is all, which moves parameters too, and stage is {strategy.stage}: "
            "ZeRO cuts parameters from stage 3 on",
            hint="set strategy.stage to 3, or strategy.offload to optimizer",
        )
    if strategy.offload != "none" and zero_precision(training) == "bf16":
        raise NotSupported(
            "training.precision is bf16 and strategy.offload is "
            f"{strategy.offload}: DeepSpeed keeps bf16 optimizer state in host memory only with "
            "its own Adam, whose losses are not those of the other strategies",
            hint="set training.precision to bf16-mixed, or strategy.offload to none",
        )
    if Policy(plan.checkpoint).ever:
        refuse_eight_bit(training)
    if strategy.stage == 3 and training.lora is not None and training.lora.quantize != "none":
        raise NotSupported(
            f"training.lora.quantize is {training.lora.quantize} and strategy.stage is 3: "
            "ptx does not cut quantised weights",
            hint="set strategy.stage to 2, which leaves the frozen base whole on each rank",
        )


def refuse_eight_bit(training: Training) -> None:
    """Raise NotSupported where what the optimizer keeps cannot be told apart by parameter."""
    if training.optimizer.name == "adamw-8bit":
        raise NotSupported(
            "training.optimizer.name is adamw-8bit, and ptx does not write checkpoints of it under "
            "strategy zero, where one scale is shared by parameters that lie side by side",
            hint="set training.optimizer.name to adamw, whose state zero cuts over the ranks, or "
            "use strategy ddp",
        )
