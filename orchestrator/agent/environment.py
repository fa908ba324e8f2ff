"""What launch.sh and everything below it finds in its environment."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.agent.checks import node_devices
from orchestrator.agent.log_limits import MOST, PART, limits_environment
from orchestrator.agent.place import NotStartable, Place
from orchestrator.agent.processes import read_process

_PORTS = range(20000, 28000)
"""Below the ephemeral ports (32768 and up) and below torch's own 29500."""


def launch_environment(
    place: Place, plan: Mapping[str, Any], env: Mapping[str, str]
) -> dict[str, str]:
    """Raises NotStartable when a secret is missing."""
    myself = read_process(os.getpid())
    ours = dict(env)
    for name in ("PTX_DEVICES", "PTX_PORT", PART, MOST):
        ours.pop(name, None)  # an outer run's, where this one was submitted from inside it
    ours.update(read_secrets(place.run_dir / "secrets", plan["secrets"]))
    ours.update(
        PTX_RUN_ID=place.run_id,
        PTX_RUN_DIR=str(place.run_dir),
        PTX_BUNDLE=str(place.bundle),
        PTX_PLAN=str(place.plan_path),
        PTX_ATTEMPT=str(place.attempt),
        PTX_NODE_RANK=str(place.node_rank),
        PTX_NODE_DIR=str(place.node_dir),
        PTX_MARK=place.mark,
        PTX_AGENT_PID=str(os.getpid()),
        PTX_AGENT_START=str(myself.start if myself else 0),
    )
    ours.update(limits_environment(plan.get("logging") or {}))
    if plan["gpus_per_node"]:
        ours["PTX_DEVICES"] = ",".join(node_devices(env))
    else:
        ours["CUDA_VISIBLE_DEVICES"] = ""
    if plan["scheduler"] == "local":
        ours["PTX_PORT"] = str(free_port())
    return ours


def read_secrets(path: Path, names: list[str]) -> dict[str, str]:
    """The named values out of `NAME=value` items, each ended by NUL."""
    if not names:
        return {}
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotStartable(
            f"the secrets file {path} cannot be read ({error.strerror}); submit the run again"
        ) from error
    pairs = [os.fsdecode(item).partition("=") for item in data.split(b"\0") if item]
    values = {name: value for name, _, value in pairs}
    missing = [name for name in names if name not in values]
    if missing:
        raise NotStartable(f"{path} lacks the secret {missing[0]}; submit the run again")
    return {name: values[name] for name in names}


def free_port() -> int:
    """A TCP port that nothing listens on now. Raises NotStartable when there is none."""
    for port in random.sample(_PORTS, 200):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise NotStartable(f"no free TCP port between {_PORTS.start} and {_PORTS.stop - 1}")
