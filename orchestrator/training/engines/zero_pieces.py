"""What a rank holds under ZeRO: runs of elements of the parameters, in flat tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from orchestrator.checkpoints.regions import Span
from orchestrator.training.checkpoint.optimizer_state import materialise_state
from orchestrator.training.checkpoint.pieces import MODEL, Piece, trained_tensors
from orchestrator.training.engines.zero_checks import master_weights
from orchestrator.training.process_group import Rank


@dataclass(frozen=True)
class _Part:
    """This rank's elements of a parameter, which lie in one of the optimizer's flat tensors."""

    flat: torch.Tensor
    start: int
    """Of the elements within `flat`."""
    region: Span
    """Of the whole parameter: what is padding in `flat` is not in it."""

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """The same elements of `flat` or of a state of it; writing into them changes it."""
        return flat.detach().narrow(0, self.start, self.region.numel)


def zero_pieces(engine: Any, model: nn.Module, rank: Rank) -> Iterator[Piece]:
    """All that training changes; `engine` is a DeepSpeedEngine, and `model` what it trains.

    Under mixed precision the parameters' pieces are the float32 master weights: the model's own
    are roundings of them, made anew by `refresh_parameters`. A parameter of which other ranks
    hold all has no piece. The optimizer's state must be there: see `materialise_zero_state`.
    """
    states = engine.basic_optimizer.state
    for name, tensor in trained_tensors(model):
        if not isinstance(tensor, nn.Parameter):
            yield _buffer(name, tensor, rank)
            continue
        part = _part(engine, tensor, rank)
        if part is None:
            continue
        shape = tuple(getattr(tensor, "ds_shape", tensor.shape))
        yield Piece(f"{MODEL}/{name}", shape, part.region, part.of(part.flat), trained=True)
        for state, value in states.get(part.flat, {}).items():
            if torch.is_tensor(value) and value.shape == part.flat.shape:  # no count of steps
                yield Piece(f"{state}/{name}", shape, part.region, part.of(value))


def _buffer(name: str, buffer: torch.Tensor, rank: Rank) -> Piece:
    # Statistics over batches differ between ranks: rank 0's count, as at the end of training.
    whole = Span(0, buffer.numel())
    return Piece(f"{MODEL}/{name}", tuple(buffer.shape), whole, buffer.detach(), rank.rank, 1)


def _part(engine: Any, parameter: Any, rank: Rank) -> _Part | None:
    """None where this rank holds nothing of the parameter."""
    if hasattr(parameter, "ds_id"):  # stage 3 cuts each parameter
        optimizer = engine.optimizer
        number, start, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
        first = rank.rank * length
        last = min(first + length, parameter.ds_numel)
        flat = master_weights(engine)[number]
        return _Part(flat, start, Span(first, last)) if first < last else None
    mapping = parameter._hp_mapping  # stages 1 and 2 cut all parameters of a group end to end
    if mapping is None:
        return None
    within, whole = mapping.hp_fragment_address, mapping.lp_fragment_address
    flat = master_weights(engine)[mapping.param_group_index]
    return _Part(flat, within.start, Span(whole.start, whole.start + whole.numel))


def materialise_zero_state(engine: Any) -> None:
    """Make the state that the optimizer makes at its first step, and change nothing else."""
    optimizer = engine.basic_optimizer
    owners: Sequence[int] | None = getattr(engine.optimizer, "sub_group_to_group_id", None)
    if owners is None:
        materialise_state(optimizer)
        return
    for number, flat in enumerate(master_weights(engine)):
        # As in a step of stage 3, which shows its optimizer one flat tensor at a time.
        group = optimizer.param_groups[owners[number]]
        group["params"] = [flat]
        try:
            materialise_state(optimizer)
        finally:
            group["params"] = []
