"""An optimizer's state made before its first step, and its counts of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch

_NEUTRAL = ("lr", "weight_decay")
"""Settings of a parameter group that are zero in a step that changes nothing."""


def materialise_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the state that the optimizer makes at a parameter's first step, where there is none.

    As before that step: averages are zero, and so are counts of steps. Parameters, gradients and
    states that are there stay what they are.
    """
    if _has_no_state(optimizer):
        return
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    without = [parameter for parameter in parameters if not optimizer.state.get(parameter)]
    if not without:
        return
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    for parameter in without:
        parameter.grad = torch.zeros_like(parameter)
    with _neutral(optimizer):
        optimizer.step()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    for parameter in without:
        _set_steps(optimizer.state[parameter], 0)


def _has_no_state(optimizer: torch.optim.Optimizer) -> bool:
    return isinstance(optimizer, torch.optim.SGD) and not any(
        group["momentum"] for group in optimizer.param_groups
    )


@contextmanager
def _neutral(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """With zero gradients a step then changes no parameter, and its averages become zero."""
    kept = [{name: group[name] for name in _NEUTRAL} for group in optimizer.param_groups]
    try:
        for group in optimizer.param_groups:
            group |= dict.fromkeys(_NEUTRAL, 0.0)
        yield
    finally:
        for group, settings in zip(optimizer.param_groups, kept, strict=True):
            group.update(settings)


def counts_of(optimizer: torch.optim.Optimizer) -> dict[torch.Tensor, int]:
    """The count of steps that Adam corrects its averages by, of each parameter that has one.

    Waits for the device, once.
    """
    steps = {p: state["step"] for p, state in optimizer.state.items() if "step" in state}
    if not steps:
        return {}
    values = torch.stack([torch.as_tensor(count).float() for count in steps.values()])
    return {p: int(count) for p, count in zip(steps, values.tolist(), strict=True)}


def steps_taken(optimizer: torch.optim.Optimizer) -> int | None:
    """The count of the optimizer's parameters; None where it counts nothing."""
    return commonest(counts_of(optimizer).values())


def commonest(counts: Collection[int]) -> int | None:
    """The count that most parameters have: some batches may leave a few out. None without any."""
    return Counter(counts).most_common(1)[0][0] if counts else None


def set_steps_taken(
    optimizer: torch.optim.Optimizer,
    steps: int,
    others: Mapping[torch.Tensor, int] = MappingProxyType({}),
) -> None:
    """Put the count back: `steps`, but for the parameters in `others`."""
    for parameter, state in optimizer.state.items():
        _set_steps(state, others.get(parameter, steps))


def _set_steps(state: dict[str, Any], steps: int) -> None:
    if "step" in state:
        if torch.is_tensor(state["step"]):
            state["step"].fill_(steps)
        else:
            state["step"] = steps
