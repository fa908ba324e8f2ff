"""The launcher's own flags."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.words import closest, listed, shown

# What to write in the spec instead of a flag that ptx sets.
_INSTEAD = {
    "nnodes": "resources.nodes",
    "num-machines": "resources.nodes",
    "num-nodes": "resources.nodes",
    "nproc-per-node": "resources.gpus_per_node or resources.procs_per_node",
    "num-processes": "resources.gpus_per_node or resources.procs_per_node",
    "num-gpus": "resources.gpus_per_node",
    "num-accelerators": "resources.gpus_per_node",
    "rdzv-backend": "rendezvous.backend",
    "master-port": "rendezvous.port",
    "main-process-port": "rendezvous.port",
    "mixed-precision": "training.precision",
    "gradient-accumulation-steps": "training.accumulation",
    "gradient-clipping": "training.clip_grad_norm",
    "use-fsdp": "strategy",
    "use-deepspeed": "strategy",
    "zero-stage": "strategy.stage",
    "max-restarts": "restart.max",
}
# Flags that begin like this choose a strategy.
_CHOOSES = {
    "use-fsdp": "fsdp",
    "fsdp-": "fsdp",
    "use-deepspeed": "zero",
    "deepspeed-": "zero",
    "zero-stage": "zero",
    "zero3-": "zero",
    "offload-optimizer-device": "zero",
    "offload-param-device": "zero",
}


def is_known(spec: JobSpec, _: Context) -> Iterator[Finding]:
    from launchers import registry

    try:
        registry.get(spec.launcher.name)
    except LookupError:
        names = registry.names()
        match = closest(spec.launcher.name, names)
        yield Finding(
            ("launcher", "name"),
            f"there is no launcher {shown(spec.launcher.name)}",
            f"did you mean {match}?" if match else f"write {listed(names)}",
            "unknown-launcher",
        )


def _meant(flag: str, owned: set[str]) -> str | None:
    """argparse takes the beginning of a long flag for the flag itself."""
    given = _folded(flag)
    if given in owned:
        return given
    if not flag.startswith("--"):
        return None
    return next((known for known in sorted(owned) if known.startswith(given)), None)


def owned_flags(spec: JobSpec, _: Context) -> Iterator[Finding]:
    from launchers import registry

    if not spec.launcher.args:
        return
    try:
        owned = {_folded(flag) for flag in registry.get(spec.launcher.name).owned_flags}
    except LookupError:
        return
    for index, flag in _flags(spec):
        meant = _meant(flag, owned)
        if meant is None or _contradiction(spec, index, flag):
            continue
        instead = _INSTEAD.get(meant)
        yield Finding(
            ("launcher", "args", index),
            f"{shown(flag)} is set by ptx itself",
            f"use {instead} instead" if instead else "remove it",
            "owned-flag",
        )


def contradictions(spec: JobSpec, _: Context) -> Iterator[Finding]:
    """A strategy in the spec, and a flag that asks the launcher for another one."""
    for index, flag in _flags(spec):
        if finding := _contradiction(spec, index, flag):
            yield finding


def _contradiction(spec: JobSpec, index: int, flag: str) -> Finding | None:
    strategy, chosen = spec.strategy, _strategy_of(flag)
    if chosen is not None and chosen != strategy.name:
        return Finding(
            ("launcher", "args", index),
            f"strategy is {strategy.name}, and {shown(flag)} asks {spec.launcher.name} "
            f"for {chosen}",
            f"write `strategy: {chosen}`, or remove the flag",
        )
    if strategy.name == "zero" and _folded(flag) == "zero-stage":
        stage = _value(spec.launcher.args, index)
        if stage is not None and stage != str(strategy.stage):
            return Finding(
                ("launcher", "args", index),
                f"strategy.stage is {strategy.stage}, and the launcher is told {shown(stage)}",
                f"write `stage: {stage}` in strategy, and remove the flag",
            )
    return None


def _flags(spec: JobSpec) -> Iterator[tuple[int, str]]:
    for index, word in enumerate(spec.launcher.args):
        if word.startswith("-") and len(word) > 1:
            yield index, word.split("=", 1)[0]


def _folded(flag: str) -> str:
    """Launchers take --num-processes and --num_processes alike."""
    return flag.lstrip("-").replace("_", "-")


def _strategy_of(flag: str) -> str | None:
    folded = _folded(flag)
    for prefix, strategy in _CHOOSES.items():
        if folded == prefix or (prefix.endswith("-") and folded.startswith(prefix)):
            return strategy
    return None


def _value(args: list[str], index: int) -> str | None:
    _, equals, value = args[index].partition("=")
    if equals:
        return value
    return args[index + 1] if index + 1 < len(args) else None
