"""The repeated blocks of a model: what is sharded, recomputed and compiled one by one."""

from __future__ import annotations

from torch import nn


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The items of the outermost ModuleLists and Sequentials that repeat one class, in order.

    For a transformer these are its decoder or encoder layers, wherever the model keeps them
    (`model.layers`, `transformer.layer`, inside an adapter's wrapper); empty where nothing repeats.
    """
    found: list[nn.Module] = []
    _collect(model, found)
    return found


def _collect(module: nn.Module, found: list[nn.Module]) -> None:
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential) and _repeats(child):
            found.extend(child.children())  # each once, also where a model runs one layer twice
        else:
            _collect(child, found)


def _repeats(items: nn.ModuleList | nn.Sequential) -> bool:
    kinds = {type(item) for item in items}
    has_parts = any(next(item.children(), None) is not None for item in items)
    return len(kinds) == 1 and has_parts
