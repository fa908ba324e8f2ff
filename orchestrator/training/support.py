"""Which settings of a spec the entrypoints here carry out, and which they refuse."""

from __future__ import annotations

from orchestrator.training.errors import NotSupported
from orchestrator.training.plan import TrainingPlan


def refuse_unsupported(plan: TrainingPlan) -> None:
    """Raise NotSupported, naming the setting, for whatever would train something else.

    Silently training with DDP where the spec says ZeRO, or in full where it says LoRA,
    wastes the whole job; so this comes before the process group, data and model.
    """
    for setting, wanted in _unsupported(plan).items():
        if wanted:
            raise NotSupported(
                f"this entrypoint cannot do `{setting}` yet, so it stops before the first step",
                hint="take that setting out of the spec",
            )
    schedule = plan.training.schedule
    if schedule.name == "exponential" and schedule.final_ratio == 0:
        raise NotSupported(
            "training.schedule.final_ratio is 0, which an exponential schedule never reaches",
            hint="write the share of the learning rate that is left at the end, as 0.1",
        )


def settings_without_effect(plan: TrainingPlan) -> tuple[str, ...]:
    """Names of settings that are on but change nothing here, for one warning at start."""
    checkpoint, logging = plan.checkpoint, plan.logging
    effects = {
        "checkpoint.every_steps": checkpoint.every_steps is not None,
        "checkpoint.every_minutes": checkpoint.every_minutes is not None,
        "checkpoint.at_end": checkpoint.at_end,
        "checkpoint.on_signal": checkpoint.on_signal,
        "logging.tensorboard": logging.tensorboard,
        "logging.wandb": logging.wandb,
    }
    return tuple(name for name, on in effects.items() if on)


def _unsupported(plan: TrainingPlan) -> dict[str, bool]:
    strategy, training = plan.strategy, plan.training
    return {
        f"strategy: {strategy.name}": strategy.name != "ddp",
        "strategy.tensor_parallel": strategy.tensor_parallel > 1,
        "strategy.sequence_parallel": strategy.sequence_parallel,
        "strategy.pipeline_parallel": strategy.pipeline_parallel > 1,
        "training.lora": training.lora is not None,
        "training.trainable": training.trainable is not None,
        "training.activation_checkpointing": training.activation_checkpointing.mode != "none",
        "training.compile": training.compile,
        "training.local_sgd": training.local_sgd is not None,
        "training.find_micro_batch": training.find_micro_batch,
        "training.optimizer.name: adamw-8bit": training.optimizer.name == "adamw-8bit",
    }
