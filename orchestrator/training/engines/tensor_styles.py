"""How parameters lie on tensor-parallel ranks, where PyTorch's own styles do not fit."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle
from torch.distributed.tensor.placement_types import Placement

_HEADS = 2  # the dimension of queries and keys, (batch, time, heads, head_dim), that is cut


class VocabularyRows(ParallelStyle):
    """An embedding cut by vocabulary, whose output all ranks have, laid out as `output`.

    As RowwiseParallel, but it waits for what travels: a layer compiled with the tensor of a
    collective that still runs as its input would not take the next layer's.
    """

    def __init__(self, output: Placement) -> None:
        super().__init__()
        self.output = output

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[DTensor]:
            (tokens,) = inputs
            return (DTensor.from_local(tokens, device_mesh, [Replicate()], run_check=False),)

        def leave(_module: nn.Module, _inputs: object, output: DTensor) -> DTensor:
            return output.redistribute(placements=[self.output])

        _distribute(module, device_mesh, Shard(0), self.src_data_rank)
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
        return module


class Replicated(ParallelStyle):
    """Parameters are whole on every rank; the module takes and gives DTensors of any layout.

    Where its inputs are cut along time the gradient is a partial sum, and DTensor knows that.
    """

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        _distribute(module, device_mesh, Replicate(), self.src_data_rank)
        return module


def _distribute(
    module: nn.Module, device_mesh: DeviceMesh, placement: Placement, source: int | None
) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        tensor = distribute_tensor(parameter, device_mesh, [placement], src_data_rank=source)
        module.register_parameter(name, nn.Parameter(tensor, parameter.requires_grad))


class GatheredNorm(Replicated):
    """The last norm: what leaves it is whole on every rank, gathered once for the output layer,
    however that layer walks through it."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        super()._apply(module, device_mesh)
        module.register_forward_hook(lambda _module, _inputs, output: gathered(output))
        return module


class Region(ParallelStyle):
    """The start of a cut region: its hidden states are gathered, once for all its projections."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:  # noqa: ARG002
        def enter(
            _module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if inputs:
                return (gathered(inputs[0]), *inputs[1:]), named
            return inputs, named | {"hidden_states": gathered(named["hidden_states"])}

        module.register_forward_pre_hook(enter, with_kwargs=True)
        return module


def gathered(hidden: DTensor) -> DTensor:
    """Whole on every rank. Backward sums the ranks' gradients back to the layout of `hidden`:
    without this step they would go on as partial sums, also where nothing had to be gathered."""
    return hidden.redistribute(placements=[Replicate()])


class HeadNorm(Replicated):
    """A norm over each head's values (Qwen3), given plain tensors of this rank's heads."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def enter(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[DTensor]:
            (local,) = inputs
            return (DTensor.from_local(local, device_mesh, [Shard(_HEADS)], run_check=False),)

        def leave(_module: nn.Module, _inputs: object, output: DTensor) -> torch.Tensor:
            return output.to_local()

        super()._apply(module, device_mesh)
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
        return module
