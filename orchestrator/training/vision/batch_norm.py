"""Batch normalisation (Ioffe and Szegedy 2015) over the batches of all ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.training.process_group import Rank


def batch_norm_for(rank: Rank) -> type[_BatchNorm]:
    """The kind of layer under which a step does not depend on how its micro batch is divided.

    With a norm over each rank's own samples the running statistics, and so what is evaluated and
    saved, would differ from rank to rank. All kinds have the same parameters and buffers.
    """
    if rank.world_size == 1:
        return LocalBatchNorm
    return CudaBatchNorm if rank.device.type == "cuda" else GlooBatchNorm


class _Recomputable(_BatchNorm):
    """Activation checkpointing calls a layer twice a step; its statistics must move once."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(samples, channels, height, width) -> the same."""
        if not self.training or not _in_backward():
            return super().forward(input)
        momentum, self.momentum = self.momentum, 0.0
        try:
            return super().forward(input)
        finally:
            self.momentum = momentum
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.sub_(1)


def _in_backward() -> bool:
    """As torch.utils.checkpoint itself finds out. A compiler keeps buffers right on its own."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class _GlooBatchNorm(nn.BatchNorm2d):
    """PyTorch's SyncBatchNorm runs on accelerators only; this is the same in plain operations.

    Every rank must have as many samples as the others, as it has in training here.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, channels, height, width) -> the same; computes in float32."""
        values = x.float()
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = self._statistics(values)
        shape = (1, -1, 1, 1)
        assert mean is not None and variance is not None  # noqa: S101 - narrows types
        scale = self.weight.float() * torch.rsqrt(variance + self.eps)
        centred = values - mean.view(shape)
        return (centred * scale.view(shape) + self.bias.float().view(shape)).to(x.dtype)

    def _statistics(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance by channel over all ranks, in two passes: the difference of two large
        sums would lose digits."""
        dims = (0, 2, 3)
        ranks = dist.get_world_size()
        mean = _mean_of_ranks(values.mean(dims))
        variance = _mean_of_ranks((values - mean.view(1, -1, 1, 1)).square().mean(dims))
        count = values.numel() // values.shape[1] * ranks
        self._remember(mean.detach(), variance.detach() * count / max(1, count - 1))
        return mean, variance

    @torch.no_grad()
    def _remember(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        share = self.momentum or 0.0
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(new, share)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class LocalBatchNorm(_Recomputable, nn.BatchNorm2d):
    """Of a single process."""


class CudaBatchNorm(_Recomputable, nn.SyncBatchNorm):
    """PyTorch's own, in fused kernels."""


class GlooBatchNorm(_Recomputable, _GlooBatchNorm):
    """Of ranks on CPU."""


def _mean_of_ranks(values: torch.Tensor) -> torch.Tensor:
    """Gradients pass through it, to all ranks."""
    total: torch.Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()
