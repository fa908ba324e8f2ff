"""What is done to a model's layers before they are wrapped: recomputation and compilation."""

from __future__ import annotations

from importlib.util import find_spec

from torch import nn
from torch.distributed.tensor import DTensor

from orchestrator.spec.training import Training
from orchestrator.training.engines.activation import checkpoint_layers
from orchestrator.training.engines.layers import layers_of
from orchestrator.training.errors import NotSupported


def prepare_layers(objective: nn.Module, training: Training) -> None:
    """Change the layers in place as the settings say. Names of parameters stay what they are.

    Raises NotSupported where the model has no layers for them, or where nothing can compile.
    """
    _refuse_recompiled(objective, training)
    checkpoint_layers(objective, training.activation_checkpointing)
    if training.compile:
        compile_layers(objective)


def _refuse_recompiled(objective: nn.Module, training: Training) -> None:
    """PyTorch 2.13 compiles no checkpointed region of DTensors, unless its policy keeps some."""
    mode = training.activation_checkpointing.mode
    if not training.compile or mode not in ("full", "every-n"):
        return
    if any(isinstance(parameter, DTensor) for parameter in objective.parameters()):
        raise NotSupported(
            f"training.compile does not go with tensor_parallel where "
            f"activation_checkpointing.mode is {mode}",
            hint="set activation_checkpointing.mode to selective, or compile to false",
        )


def compile_layers(objective: nn.Module) -> None:
    """torch.compile for each layer: they share one compiled forward, and what is between them
    (wrappers' collectives, the loss) stays as it is. A model without layers is compiled whole.

    Compilation itself happens in the first step. Raises NotSupported where there is no compiler.
    """
    _require_compiler(objective)
    for module in layers_of(objective) or [objective]:
        module.compile()


def _require_compiler(objective: nn.Module) -> None:
    """Inductor writes C++ for the CPU and Triton for GPUs, and fails at the first step without."""
    if any(parameter.device.type == "cuda" for parameter in objective.parameters()):
        if find_spec("triton") is None:
            raise NotSupported(
                "training.compile is on and the package triton is not installed",
                hint="pip install triton, or set training.compile: false",
            )
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise NotSupported(
            "training.compile is on and no C++ compiler is found here",
            hint="install g++, name one in CXX, or set training.compile: false",
        ) from error
