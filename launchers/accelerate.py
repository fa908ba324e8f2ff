"""Hugging Face accelerate.

Its config file holds what the ranks are; where they meet goes on the command line, because
the file's `rdzv_backend`, `same_network` and rendezvous settings are silently ignored.
"""

from __future__ import annotations

import json

from launchers.facts import Facts, Launch, Runtime, Word
from launchers.torchrun import SHUTDOWN, c10d_conf

CONFIG = "accelerate.yaml"
_PRECISION = {"fp32": "no", "bf16": "no", "bf16-mixed": "bf16", "fp16-mixed": "fp16"}

Settings = dict[str, "str | int | bool | Settings"]


class Accelerate:
    name = "accelerate"
    owned_flags = frozenset(
        {
            "--config_file",
            "--cpu",
            "--multi_gpu",
            "--tpu",
            "--use_deepspeed",
            "--use_fsdp",
            "--use_megatron_lm",
            "--num_processes",
            "--num_machines",
            "--machine_rank",
            "--main_process_ip",
            "--main_process_port",
            "--same_network",
            "--rdzv_backend",
            "--rdzv_conf",
            "--mixed_precision",
            "--gpu_ids",
            "--max_restarts",
            "--deepspeed_config_file",
            "--deepspeed_multinode_launcher",
            "--zero_stage",
            "--offload_optimizer_device",
            "--offload_param_device",
            "--gradient_accumulation_steps",
            "--gradient_clipping",
            "--fsdp_version",
            "--fsdp_offload_params",
            "--fsdp_reshard_after_forward",
            "--fsdp_sharding_strategy",
            "--no_python",
            "--module",
            "-m",
        }
    )

    def render(self, facts: Facts) -> Launch:
        deepspeed: tuple[Word, ...] = ()
        if facts.strategy == "zero":
            deepspeed = (Runtime("--deepspeed_config_file=${PTX_BUNDLE}/deepspeed.json"),)
        return Launch(
            argv=(
                Runtime("${PTX_PYTHON}"),
                "-m",
                "accelerate.commands.launch",
                *facts.extra_args,
                Runtime("--config_file=${PTX_BUNDLE}/" + CONFIG),
                *deepspeed,
                *self._rendezvous(facts),
                "--no_python",
            ),
            env=self._env(facts),
            files={CONFIG: _yaml(self._config(facts)).encode()},
            halves_dollars=True,  # torchrun inside it does
        )

    def _rendezvous(self, facts: Facts) -> tuple[Word, ...]:
        port = Runtime("--main_process_port=${PTX_HEAD_PORT}")
        if facts.nodes == 1:
            return (port,)
        if facts.rdzv_backend == "static":
            backend: tuple[Word, ...] = (
                "--rdzv_backend=static",
                f"--rdzv_conf=timeout={facts.rdzv_timeout}",
            )
        else:
            backend = ("--rdzv_backend=c10d", Runtime("--rdzv_conf=" + c10d_conf(facts)))
        return (
            Runtime("--machine_rank=${PTX_NODE_RANK}"),
            Runtime("--main_process_ip=${PTX_HEAD_ADDR}"),
            port,
            *backend,
        )

    def _env(self, facts: Facts) -> dict[str, Word]:
        env: dict[str, Word] = dict(SHUTDOWN)
        if facts.gpus_per_node == 0 and facts.strategy == "zero":
            # ACCELERATE_USE_CPU would make plain data parallelism of it, without a word.
            env["DS_ACCELERATOR"] = "cpu"
        elif facts.gpus_per_node == 0:
            # `--cpu` starts a single process; several come from multi_gpu and this variable.
            env["ACCELERATE_USE_CPU"] = "true"
        if facts.nodes > 1:
            # accelerate has no flags for these two, but torchrun inside it reads them.
            env["PET_LOCAL_ADDR"] = Runtime("${PTX_LOCAL_ADDR}")
            env["PET_RDZV_ID"] = Runtime(f"{facts.run_id}.${{PTX_ATTEMPT}}")
        return env

    def _config(self, facts: Facts) -> Settings:
        config: Settings = {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": "MULTI_GPU",
            "num_machines": facts.nodes,
            "num_processes": facts.world_size,
            "mixed_precision": _PRECISION[facts.precision],
            "use_cpu": facts.gpus_per_node == 0,
            "main_training_function": "main",
            "debug": False,
        }
        if facts.strategy == "fsdp":
            config |= self._fsdp(facts)
        elif facts.strategy == "zero":
            config |= {
                "distributed_type": "DEEPSPEED",
                # Others write the environment to ~/.deepspeed_env and start ssh.
                "deepspeed_config": {
                    "deepspeed_multinode_launcher": "standard",
                    "zero3_init_flag": False,
                },
            }
            # accelerate refuses precision in two places; deepspeed.json has it.
            del config["mixed_precision"]
        return config

    def _fsdp(self, facts: Facts) -> Settings:
        settings: Settings = {
            "distributed_type": "FSDP",
            "fsdp_config": {
                "fsdp_version": 2,
                "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                "fsdp_reshard_after_forward": facts.sharding != "grad-op",
                "fsdp_offload_params": facts.offload_parameters,
                "fsdp_state_dict_type": "SHARDED_STATE_DICT",
                "fsdp_cpu_ram_efficient_loading": True,
            },
        }
        if facts.sharding == "hybrid":
            settings["parallelism_config"] = {
                "parallelism_config_dp_replicate_size": facts.nodes,
                "parallelism_config_dp_shard_size": facts.procs_per_node,
            }
        return settings


def _yaml(settings: Settings, indent: str = "") -> str:
    """Block style; scalars as JSON, which YAML reads alike."""
    lines = [
        f"{indent}{key}:\n{_yaml(value, indent + '  ')}"
        if isinstance(value, dict)
        else f"{indent}{key}: {json.dumps(value)}\n"
        for key, value in settings.items()
    ]
    return "".join(lines)
