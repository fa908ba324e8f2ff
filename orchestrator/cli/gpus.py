"""`ptx gpus`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator.cli.options import Json
from orchestrator.cli.output import emit, emit_json, next_commands, note, size, table

if TYPE_CHECKING:
    from orchestrator.devices.gpu import Device, Gpu, GpuProcess, Inventory
    from orchestrator.schedulers.lease import Holder

_HEADER = ("GPU", "NAME", "MEMORY", "USED", "UTIL", "STATE", "HELD BY")


def gpus(json: Json = False) -> None:
    """Show this machine's GPUs: memory, utilisation, processes, and who holds which.

    A GPU is free when no run of yours holds it, nobody computes on it, and next to nothing of
    its memory is used. CUDA_VISIBLE_DEVICES is not applied: all GPUs are shown.

    \b
    Examples:
      ptx gpus
      ptx gpus --json
    """
    from orchestrator.devices.nvml import inventory
    from orchestrator.schedulers.lease import Leases, lease_folder

    found = inventory()
    holders: Mapping[str, Holder] = {}
    if found.gpus:
        with Leases(lease_folder()) as leases:
            holders = leases.holders()
    if json:
        emit_json(_fields(found, holders))
        return
    rows = [row for gpu in found.gpus for row in _rows(gpu, holders)]
    emit(table(_HEADER, rows))
    if found.reason:
        note(f"{found.reason} Runs on this machine use its CPU cores.")
    else:
        next_commands("ptx submit SPEC --gpus N")


def _fields(found: Inventory, holders: Mapping[str, Holder]) -> dict[str, Any]:
    return {"gpus": [_gpu_fields(gpu, holders) for gpu in found.gpus], "reason": found.reason}


def _gpu_fields(gpu: Gpu, holders: Mapping[str, Holder]) -> dict[str, Any]:
    fields = {"index": gpu.index, **_device_fields(gpu, holders)}
    fields["utilisation_percent"] = gpu.utilisation
    fields["mig"] = None
    if gpu.mig_enabled:
        fields["free"] = False  # only its instances can be had
        fields["mig"] = [
            _device_fields(part, holders)
            | {"gpu_instance": part.gpu_instance, "compute_instance": part.compute_instance}
            for part in gpu.instances
        ]
    return fields


def _device_fields(device: Device, holders: Mapping[str, Holder]) -> dict[str, Any]:
    holder = holders.get(device.uuid)
    return {
        "uuid": device.uuid,
        "name": device.name,
        "memory_used_bytes": device.memory_used,
        "memory_total_bytes": device.memory_total,
        "free": holder is None and device.idle,
        "lease": asdict(holder) if holder else None,
        "processes": [_process_fields(process) for process in device.processes],
    }


def _process_fields(process: GpuProcess) -> dict[str, Any]:
    fields = asdict(process)
    fields["memory_bytes"] = fields.pop("memory")
    return fields


def _rows(gpu: Gpu, holders: Mapping[str, Holder]) -> list[list[str]]:
    """One row a GPU; under MIG one more for each instance, since only those can be held."""
    if not gpu.mig_enabled:
        return [_row(str(gpu.index), gpu, _percent(gpu.utilisation), holders)]
    whole = [
        str(gpu.index),
        gpu.name,
        size(gpu.memory_total),
        size(gpu.memory_used),
        _percent(gpu.utilisation),
        "mig",
        f"{len(gpu.instances)} instances",
    ]
    return [
        whole,
        *(_row(f"{gpu.index}.{n}", i, "-", holders) for n, i in enumerate(gpu.instances)),
    ]


def _row(label: str, device: Device, percent: str, holders: Mapping[str, Holder]) -> list[str]:
    holder = holders.get(device.uuid)
    free = holder is None and device.idle
    held = [_run(holder)] if holder else []
    held += [_words(process) for process in device.processes]
    return [
        label,
        device.name,
        size(device.memory_total),
        size(device.memory_used),
        percent,
        "free" if free else "busy",
        "; ".join(held) or "-",
    ]


def _run(holder: Holder) -> str:
    from orchestrator.schedulers.lease import UNNAMED

    if holder == UNNAMED:
        return "a run that found no room on the disk to say which"
    return f"run {holder.run_id} (pid {holder.pid})"


def _words(process: GpuProcess) -> str:
    name = (process.command or "?").split(" ")[0].rpartition("/")[2]
    memory = f" {size(process.memory)}" if process.memory is not None else ""
    run = f" run {process.run_id}" if process.run_id else ""
    return f"{process.user or '?'} pid {process.pid} {name}{memory}{run}"


def _percent(value: int | None) -> str:
    return "-" if value is None else f"{value}%"
