"""Building a model under ZeRO 3 so that no rank's device ever holds all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from orchestrator.spec.training import Training
from orchestrator.training.engines.zero_config import computed_in, zero_config
from orchestrator.training.engines.zero_import import import_deepspeed
from orchestrator.training.errors import NotSupported
from orchestrator.training.plan import TrainingPlan


@contextmanager
def zero_init(plan: TrainingPlan) -> Iterator[None]:
    """Build or load a model inside; the plan's strategy is ZeRO stage 3.

    What transformers makes with `from_pretrained` or `from_config` is cut as it is made: rank 0
    alone reads the files, or draws the random weights, and all others take its values module by
    module. transformers does so itself as long as the configuration object here is alive. It
    draws in another order than without ZeRO 3: from the same distribution, but other numbers.
    Only a model that is built outside, and cut by `cut_parameters`, has the same random weights
    as under the other strategies.

    Every other model is built whole, in host memory, and cut by `cut_parameters`. DeepSpeed's
    `zero.Init` could cut it too, but takes a module's weights away when the module's own __init__
    ends: whatever a parent then does to them (scaling a residual branch, say) is lost without a
    word, and buffers are rounded to the parameters' precision.
    Raises NotSupported where a package is missing.
    """
    deepspeed = import_deepspeed(plan)
    # Takes over the group that is there. Without it a batch is checked against one rank.
    deepspeed.init_distributed()
    try:
        from transformers.integrations.deepspeed import (
            HfDeepSpeedConfig,
            unset_hf_deepspeed_config,
        )
    except ImportError as error:
        raise NotSupported(
            f"strategy zero needs the package transformers to build a model: {error}",
            hint="pip install 'ptx[train]'",
        ) from error
    alive = HfDeepSpeedConfig(zero_config(plan))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        # Left on, it would cut models that this process builds later for another strategy.
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
        del alive


def cast_whole_parameters(model: nn.Module, training: Training) -> None:
    """Give every real parameter that is not cut yet the format that DeepSpeed computes in.

    DeepSpeed casts a model that is whole, but not adapters beside a base that is cut already.
    """
    dtype = computed_in(training)
    for parameter in model.parameters():
        if parameter.is_floating_point() and not hasattr(parameter, "ds_id"):
            parameter.data = parameter.data.to(dtype)


def cut_parameters(model: nn.Module, config: dict[str, Any], device: torch.device) -> None:
    """Leave each rank its part of rank 0's parameters, one parameter at a time; all ranks call it.

    Those that are cut already stay as they are. Buffers move to `device` whole.
    """
    from deepspeed.runtime.zero import Init

    Init(module=model, config_dict_or_path=config)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)
