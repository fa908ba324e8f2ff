"""Which key somebody meant."""

from __future__ import annotations

from orchestrator.spec.fields import Path, keys_below, spec_fields
from orchestrator.spec.words import closest, listed

# What others call it. Only names that no spec key bears.
_SYNONYMS = {
    "gpus": "resources.gpus_per_node",
    "num_gpus": "resources.gpus_per_node",
    "n_gpus": "resources.gpus_per_node",
    "ngpus": "resources.gpus_per_node",
    "num_nodes": "resources.nodes",
    "nnodes": "resources.nodes",
    "nproc_per_node": "resources.procs_per_node",
    "ntasks_per_node": "resources.procs_per_node",
    "num_processes": "resources.procs_per_node",
    "processes": "resources.procs_per_node",
    "procs": "resources.procs_per_node",
    "cpus": "resources.cpus_per_task",
    "mem": "resources.memory",
    "time": "resources.time_limit",
    "walltime": "resources.time_limit",
    "timelimit": "resources.time_limit",
    "wall_time": "resources.time_limit",
    "queue": "slurm.partition",
    "gres": "slurm.gpu_flag",
    "sbatch": "slurm.options",
    "extra": "slurm.options",
    "environment": "env",
    "environ": "env",
    "job_name": "name",
    "cmd": "entrypoint.command",
    "run": "entrypoint.command",
    "program": "entrypoint.script",
    "batch_size": "training.micro_batch",
    "micro_batch_size": "training.micro_batch",
    "train_batch_size": "training.global_batch",
    "global_batch_size": "training.global_batch",
    "gradient_accumulation": "training.accumulation",
    "gradient_accumulation_steps": "training.accumulation",
    "mixed_precision": "training.precision",
    "dtype": "training.precision",
    "bf16": "training.precision",
    "fp16": "training.precision",
    "learning_rate": "training.optimizer.lr",
    "max_grad_norm": "training.clip_grad_norm",
    "gradient_checkpointing": "training.activation_checkpointing",
    "peft": "training.lora",
    "zero_stage": "strategy.stage",
    "deepspeed": "launcher",
    "accelerate": "launcher",
    "torchrun": "launcher",
    "backend": "rendezvous.backend",
    "master_port": "rendezvous.port",
    "ifname": "rendezvous.interface",
    "max_restarts": "restart.max",
    "retries": "restart.max",
    "save_every": "checkpoint.every_steps",
    "save_steps": "checkpoint.every_steps",
    "resume": "checkpoint.resume",
    "tp": "strategy.tensor_parallel",
    "pp": "strategy.pipeline_parallel",
    "working_dir": "workdir",
    "cwd": "workdir",
}


def for_key(section: Path, key: str) -> str:
    """The way out for a key that `section` does not have."""
    here = keys_below(section)
    if match := closest(key, here):
        return f"did you mean {match}?"
    dotted = [".".join(path) for path in spec_fields()]
    elsewhere = [path for path in dotted if path.split(".")[-1] == key]
    if elsewhere:
        return f"it belongs elsewhere: {listed(elsewhere)}"
    if synonym := _SYNONYMS.get(key.lower().replace("-", "_")):
        return f"that is {synonym} here"
    last_names = {path.split(".")[-1]: path for path in reversed(dotted)}
    if match := closest(key, last_names):
        return f"did you mean {last_names[match]}?"
    return f"keys here: {', '.join(here)}"


def for_path(dotted: str) -> str:
    """The way out for a path such as `resources.node` that is not in the spec."""
    *section, key = dotted.split(".")
    known = spec_fields()
    if tuple(section) in known and (below := keys_below(tuple(section))):
        if match := closest(key, below):
            return f"did you mean {'.'.join((*section, match))}?"
        return for_key(tuple(section), key)
    if match := closest(dotted, (".".join(path) for path in known)):
        return f"did you mean {match}?"
    return for_key((), key if not section else dotted)
