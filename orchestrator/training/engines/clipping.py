"""The gradient's norm over everything, however it is spread."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Partial, Replicate

Groups = tuple[dist.ProcessGroup, ...]
"""Over whose ranks a tensor is cut, outermost first; empty where every rank holds all of it."""


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[nn.Parameter],
    largest: float,
    *,
    stages: dist.ProcessGroup | None = None,
    elsewhere: Collection[nn.Parameter] = (),
) -> torch.Tensor:
    """Scale all gradients so that their joint L2 norm is at most `largest` (Pascanu et al. 2013).

    Parameters may be plain tensors, the same on every rank, and DTensors on any mesh. `stages`
    joins ranks that hold other parameters (of a pipeline); what several of them hold, such as
    tied embeddings, is counted once where all but one name it in `elsewhere`.

    Returns the norm before that: a float32 scalar on the gradients' device, the same on all
    ranks, which the host has not waited for. Infinite or NaN where a gradient is; gradients are
    NaN then. All ranks of the meshes and of `stages` call it together.
    """
    owned = list(parameters)
    skipped = {id(parameter) for parameter in elsewhere}
    counted = [p.grad for p in owned if p.grad is not None and id(p) not in skipped]
    norm = _square(counted, stages, _device(owned)).sqrt()
    coefficient = (largest / (norm + 1e-6)).clamp(max=1.0)
    for grads in _by_kind(_local(p.grad) for p in owned if p.grad is not None):
        torch._foreach_mul_(grads, coefficient.to(grads[0].device))
    return norm


def _square(
    gradients: Sequence[torch.Tensor], stages: dist.ProcessGroup | None, device: torch.device
) -> torch.Tensor:
    """The sum of all squared elements."""
    total: torch.Tensor = sum(
        (square.to(device) for square in _reduced(gradients)), torch.zeros((), device=device)
    )
    if stages is not None:
        dist.all_reduce(total, group=stages)
    return total


def _reduced(gradients: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Sums of squares over the ranks, in one all-reduce for each mesh axis that cuts anything:
    what is cut over (shard, tensor) is added up over tensor, then joins what is cut over shard.
    """
    squares = {
        groups: _local_square([_local(gradient) for gradient in cut])
        for groups, cut in _by_cut(gradients).items()
    }
    while squares:
        groups = max(squares, key=len)  # the first of the longest: the same on every rank
        square = squares.pop(groups)
        if not groups:
            yield square
            continue
        dist.all_reduce(square, group=groups[-1])
        rest = groups[:-1]
        squares[rest] = squares[rest] + square if rest in squares else square


def _by_cut(gradients: Sequence[torch.Tensor]) -> dict[Groups, list[torch.Tensor]]:
    alike: dict[object, list[torch.Tensor]] = {}
    for gradient in gradients:
        whole = _without_partial_sums(gradient)
        alike.setdefault(_spread(whole), []).append(whole)
    cut: dict[Groups, list[torch.Tensor]] = {}
    for same in alike.values():
        cut.setdefault(_groups(same[0]), []).extend(same)
    return cut


def _without_partial_sums(gradient: torch.Tensor) -> torch.Tensor:
    """The norm of a sum is not made of the norms of its terms."""
    if not isinstance(gradient, DTensor) or not any(p.is_partial() for p in gradient.placements):
        return gradient
    return gradient.redistribute(
        placements=[Replicate() if isinstance(p, Partial) else p for p in gradient.placements]
    )


def _spread(gradient: torch.Tensor) -> object:
    if not isinstance(gradient, DTensor):
        return None
    return gradient.device_mesh, gradient.placements


def _groups(gradient: torch.Tensor) -> Groups:
    if not isinstance(gradient, DTensor):
        return ()
    mesh = gradient.device_mesh
    return tuple(
        mesh.get_group(axis)
        for axis, placement in enumerate(gradient.placements)
        if not placement.is_replicate() and mesh.size(axis) > 1
    )


def _local(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _local_square(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """In float32, whatever the gradients are: 8 bits of bfloat16 would be the norm's too."""
    norms = [
        norm.to(gradients[0].device)
        for grads in _by_kind(gradients)
        for norm in torch._foreach_norm(grads, 2.0, dtype=torch.float32)
    ]
    return torch.stack(norms).square().sum()


def _by_kind(gradients: Iterable[torch.Tensor]) -> Iterable[list[torch.Tensor]]:
    """Lists of one device and number format each, which foreach kernels take at once."""
    kinds: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for gradient in gradients:
        kinds.setdefault((gradient.device, gradient.dtype), []).append(gradient)
    return kinds.values()


def _device(parameters: Sequence[nn.Parameter]) -> torch.device:
    """Of a stage without gradients too: it takes part in the sum over the stages."""
    for parameter in parameters:
        if parameter.grad is not None:
            return parameter.grad.device
    return parameters[0].device if parameters else torch.device("cpu")
