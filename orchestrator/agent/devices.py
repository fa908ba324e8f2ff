"""Which of the node's devices a rank gets."""

from __future__ import annotations

from collections.abc import Mapping


def device_list(value: str | None) -> list[str]:
    """CUDA_VISIBLE_DEVICES as ids, UUIDs or MIG names; CUDA ignores what follows a -1."""
    devices: list[str] = []
    for item in (value or "").split(","):
        name = item.strip()
        if not name or name == "-1" or name.startswith("NoDevFiles"):  # SLURM's word for none
            break
        devices.append(name)
    return devices


def own_device(env: Mapping[str, str]) -> str | None:
    """The device behind this rank's LOCAL_RANK, None on CPU."""
    devices = device_list(env.get("PTX_DEVICES"))
    local_rank = int(env.get("LOCAL_RANK") or 0)
    return devices[local_rank] if local_rank < len(devices) else None


def rank_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a rank, out of what the launcher gave its shim.

    Launchers only see slots 0..n-1. A rank sees the node's real devices, all of them, so that
    `cuda:LOCAL_RANK` is its own. CUDA uses no more than one MIG device a process: with those a
    rank sees its own alone, as cuda:0, and PTX_LOCAL_RANK keeps the number it had.
    """
    ours = dict(env)
    ours.setdefault("PYTHONUNBUFFERED", "1")
    ours.setdefault("PYTHONFAULTHANDLER", "1")
    if "PTX_NODE_DIR" in env and "TORCH_NCCL_DEBUG_INFO_TEMP_FILE" not in env:
        # What NCCL's flight recorder has of the last collectives, once one has timed out.
        ours.setdefault("TORCH_FR_DUMP_TEMP_FILE", f"{env['PTX_NODE_DIR']}/collectives-")
        ours.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    local_rank = env.get("LOCAL_RANK")
    if local_rank is not None:
        ours["PTX_LOCAL_RANK"] = local_rank
    device = own_device(env)
    if "PTX_DEVICES" in env:
        ours["CUDA_VISIBLE_DEVICES"] = env["PTX_DEVICES"]
    if device is not None and device.startswith("MIG-"):
        ours["CUDA_VISIBLE_DEVICES"] = device
        ours["LOCAL_RANK"] = "0"
    return ours
