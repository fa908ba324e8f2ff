"""Environment, secrets and lists of reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec

_SET_BY_PTX = {
    "RANK": "the launcher sets it for every rank",
    "LOCAL_RANK": "the launcher sets it for every rank",
    "GROUP_RANK": "the launcher sets it for every rank",
    "NODE_RANK": "ptx finds it on the node",
    "WORLD_SIZE": "use resources.nodes and resources.gpus_per_node",
    "LOCAL_WORLD_SIZE": "use resources.gpus_per_node or resources.procs_per_node",
    "MASTER_ADDR": "ptx finds it on the first node; use rendezvous.interface for another network",
    "MASTER_PORT": "use rendezvous.port",
    "CUDA_VISIBLE_DEVICES": "use resources.gpus_per_node; for a local run, set it where you type "
    "ptx submit",
}


def reserved_names(spec: JobSpec, _: Context) -> Iterator[Finding]:
    for name in spec.env:
        way_out = _SET_BY_PTX.get(name)
        if name.startswith("PTX_"):
            way_out = "names that begin with PTX_ are ptx's own; choose another"
        elif name.startswith("PET_"):
            way_out = "torchrun would read it as a flag; use launcher.args"
        if way_out is not None:
            yield Finding(
                ("env", name), f"{name} cannot be set in env", way_out, "reserved-name", at_key=True
            )


def secrets_in_env(spec: JobSpec, _: Context) -> Iterator[Finding]:
    for index, name in enumerate(spec.secrets):
        if name in spec.env:
            yield Finding(
                ("secrets", index),
                f"{name} is a secret and stands in env with its value",
                "remove it from env: its value is taken from your environment at submit",
            )
        elif name in _SET_BY_PTX or name.startswith(("PTX_", "PET_")):
            yield Finding(
                ("secrets", index), f"{name} is set by ptx itself", "remove it", "reserved-name"
            )


def secrets_once(spec: JobSpec, _: Context) -> Iterator[Finding]:
    yield from _repeated("secrets", spec.secrets)


def restart_reasons_once(spec: JobSpec, _: Context) -> Iterator[Finding]:
    yield from _repeated("restart", spec.restart.on, "on")


def _repeated(section: str, items: Sequence[str], *keys: str) -> Iterator[Finding]:
    for index, item in enumerate(items):
        if item in items[:index]:
            yield Finding(
                (section, *keys, index), f"{item} stands twice", "remove one", "duplicate-item"
            )
