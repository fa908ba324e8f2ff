"""deepspeed.json, built from the plan's numbers so that nothing in it can disagree with them."""

from __future__ import annotations

import json
from typing import Any

from launchers.facts import Facts

NAME = "deepspeed.json"


def deepspeed_config(facts: Facts) -> dict[str, Any]:
    """The configuration of `deepspeed.initialize` for a ZeRO run."""
    return {
        "train_micro_batch_size_per_gpu": facts.micro_batch,
        "gradient_accumulation_steps": facts.accumulation,
        "train_batch_size": facts.micro_batch * facts.accumulation * facts.data_parallel_size,
        **_precision(facts),
        "zero_optimization": _zero(facts),
        # The optimizer is torch's, as under the other strategies, so that losses compare.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # ptx prints progress; 0 would be an error and the default prints every 10 steps.
        "steps_per_print": 1_000_000_000,
        # Its throughput timer makes the host wait for the GPU at every micro batch.
        "timers": {"throughput": {"enabled": False}},
        # 0: not at all. Left out, DeepSpeed clips at 1 from 0.19 on.
        "gradient_clipping": facts.clip_grad_norm or 0.0,
    }


def deepspeed_json(facts: Facts) -> bytes:
    return (json.dumps(deepspeed_config(facts), indent=2) + "\n").encode()


def _precision(facts: Facts) -> dict[str, Any]:
    if facts.precision == "bf16-mixed":
        # Master weights and optimizer state are in fp32. So must be the sum over micro batches,
        # where small gradients would otherwise be rounded away.
        return {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    if facts.precision == "bf16":
        return {
            "bf16": {
                "enabled": True,
                "bf16_master_weights_and_grads": True,
                "bf16_optimizer_states": True,
            }
        }
    if facts.precision == "fp16-mixed":
        return {
            "fp16": {"enabled": True, "loss_scale": 0},  # 0: dynamic
            "data_types": {"grad_accum_dtype": "fp32"},
        }
    return {}


def _zero(facts: Facts) -> dict[str, Any]:
    # Pinned host memory needs a CUDA device.
    cpu = {"device": "cpu", "pin_memory": facts.gpus_per_node > 0}
    zero: dict[str, Any] = {"stage": facts.zero_stage}
    if facts.offload_optimizer:
        zero["offload_optimizer"] = cpu
    if facts.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
        if facts.offload_parameters:
            zero["offload_param"] = cpu
    return zero
