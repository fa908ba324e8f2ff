"""Which devices CUDA_VISIBLE_DEVICES leaves. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from orchestrator.devices.gpu import Device, Gpu

_ORDINAL = re.compile(r"\s*\+?(\d+)")


def visible(gpus: Sequence[Gpu], setting: str | None) -> tuple[Device, ...]:
    """The devices that a process with this CUDA_VISIBLE_DEVICES may use, in its order.

    As CUDA reads it: ids count in PCI bus order, UUIDs may be cut short where that is
    unambiguous, the first kind of entry settles the kind of all, a wrong entry hides itself and
    all after it, a repeated one hides everything; "" and -1 leave nothing. A GPU in MIG mode
    stands for its first instance; unset, all instances are there (each rank gets one).
    """
    if setting is None:
        return tuple(device for gpu in gpus for device in gpu.devices)
    numbered = {str(gpu.index): _usable(gpu) for gpu in gpus}
    found: list[Device] = []
    entries = _entries(setting)
    for entry in entries:
        if entry.startswith("GPU-"):
            device = _unambiguous({gpu.uuid: _usable(gpu) for gpu in gpus}, entry)
        elif entry.startswith("MIG-"):
            device = _unambiguous(dict(_mig_names(gpus)), entry)
        else:
            device = numbered.get(entry)
        if device is None:
            break
        found.append(device)
    return tuple(found) if _distinct(entries) and _distinct(found) else ()


def _entries(setting: str) -> list[str]:
    """The entries of the first one's kind, up to the first of another; ids as plain numbers."""
    words = setting.split(",")
    kind = words[0][:4]
    if kind in ("GPU-", "MIG-"):
        return list(takewhile(lambda word: word.startswith(kind), words))
    # CUDA reads ids with strtoul: "1x" is 1. What is no number ends the list.
    numbers = takewhile(bool, (_ORDINAL.match(word) for word in words))
    return [str(int(number[1])) for number in numbers if number]


def _distinct(items: Sequence[object]) -> bool:
    return all(item not in items[:place] for place, item in enumerate(items))


def _usable(gpu: Gpu) -> Device | None:
    return gpu.devices[0] if gpu.devices else None


def _mig_names(gpus: Sequence[Gpu]) -> Iterator[tuple[str, Device]]:
    for gpu in gpus:
        for part in gpu.instances:
            yield part.uuid, part
            # Before R470 an instance had no UUID of its own; CUDA still takes its number.
            yield f"MIG-{gpu.uuid}/{part.gpu_instance}/{part.compute_instance}", part


def _unambiguous(named: Mapping[str, Device | None], entry: str) -> Device | None:
    if entry in named:
        return named[entry]
    matches = [device for name, device in named.items() if name.startswith(entry)]
    return matches[0] if matches and all(match is matches[0] for match in matches) else None
