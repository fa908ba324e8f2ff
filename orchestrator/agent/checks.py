"""What only the node can know, checked before anything is started there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.agent.devices import device_list

_INTERFACES = Path("/sys/class/net")


def node_devices(env: Mapping[str, str]) -> list[str]:
    """The devices that the scheduler left to this job.

    Without CUDA_VISIBLE_DEVICES (a whole node, or a site that grants GPUs without naming them)
    it is every NVIDIA device that the node shows.
    """
    value = env.get("CUDA_VISIBLE_DEVICES")
    if value is not None:
        return device_list(value)
    shown = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    return [str(number) for number in range(len(shown))]


def problems(plan: Mapping[str, Any], env: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each thing that makes a start on this node pointless."""
    host = os.uname().nodename
    yield from _devices(plan, env, host)
    yield from _interface(plan, host)
    yield from _files(plan, host)


def _devices(plan: Mapping[str, Any], env: Mapping[str, str], host: str) -> Iterator[str]:
    wanted = int(plan["gpus_per_node"])
    found = node_devices(env) if wanted else []
    if len(found) < wanted:
        named = f" ({','.join(found)})" if found else ""
        yield (
            f"{host} shows {len(found)} GPUs{named} to this job but the run wants {wanted} a node; "
            "check resources.gpus_per_node and how slurm.gpu_dialect asks for them"
        )


def _interface(plan: Mapping[str, Any], host: str) -> Iterator[str]:
    wanted: str | None = plan["rendezvous"].get("interface")
    if not wanted or wanted.startswith("^"):  # NCCL's form for all but these
        return
    there = sorted(path.name for path in _INTERFACES.iterdir()) if _INTERFACES.is_dir() else []
    for name in wanted.removeprefix("=").split(","):
        plain = name.partition(":")[0]
        if there and not any(one.startswith(plain) for one in there):
            yield (
                f"{host} has no network interface {name}; it has {', '.join(there)}: "
                "set rendezvous.interface to one of them"
            )


def _files(plan: Mapping[str, Any], host: str) -> Iterator[str]:
    workdir = Path(plan["workdir"])
    # Path.is_dir raises below a folder that may not be entered, and on a stale mount.
    if not os.path.isdir(workdir) or not os.access(workdir, os.X_OK):  # noqa: PTH112
        yield (
            f"{host} cannot enter the working directory {workdir}; "
            "is it on a filesystem that all nodes share?"
        )
        return
    script = script_of(plan["entrypoint"])
    if script is not None and not os.access(workdir / script, os.R_OK):
        yield (
            f"{host} cannot read the script {workdir / script}; "
            "is it on a filesystem that all nodes share?"
        )


def script_of(entrypoint: list[str]) -> str | None:
    """The Python script that a rank runs, None for a module or another command."""
    if entrypoint[:1] != ["{python}"]:
        return None
    for word in entrypoint[1:]:
        if word in ("-m", "-c"):
            return None
        if not word.startswith("-"):
            return word
    return None
