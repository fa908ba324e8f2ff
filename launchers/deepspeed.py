"""The deepspeed launcher, started by ptx on each node: its own ssh and srun modes are not used."""

from __future__ import annotations

from launchers.facts import Facts, Launch, Runtime, Word


class Deepspeed:
    name = "deepspeed"
    owned_flags = frozenset(
        {
            "--hostfile",
            "-H",
            "--include",
            "-i",
            "--exclude",
            "-e",
            "--num_nodes",
            "--num_gpus",
            "--num_accelerators",
            "--master_addr",
            "--master_port",
            "--node_rank",
            "--launcher",
            "--launcher_args",
            "--no_ssh",
            "--no_local_rank",
            "--no_python",
            "--module",
            "--force_multi",
            "--enable_each_rank_log",
            "--autotuning",
        }
    )

    def render(self, facts: Facts) -> Launch:
        # The launcher's rank numbers follow the order of this file; names need not resolve.
        # Without one it counts devices, and on a CPU those are NUMA nodes.
        hosts = "".join(f"node{k} slots={facts.procs_per_node}\n" for k in range(facts.nodes))
        return Launch(
            argv=(
                Runtime("${PTX_PYTHON}"),
                "-m",
                "deepspeed.launcher.runner",
                *facts.extra_args,
                Runtime("--hostfile=${PTX_BUNDLE}/hostfile"),
                "--no_ssh",
                Runtime("--node_rank=${PTX_NODE_RANK}"),
                Runtime("--master_addr=${PTX_HEAD_ADDR}"),
                Runtime("--master_port=${PTX_HEAD_PORT}"),
                "--no_local_rank",
                "--no_python",
            ),
            env=self._env(facts),
            files={"hostfile": hosts.encode()},
        )

    def _env(self, facts: Facts) -> dict[str, Word]:
        # The other launchers set it; this one does not.
        env: dict[str, Word] = {"LOCAL_WORLD_SIZE": str(facts.procs_per_node)}
        if facts.gpus_per_node == 0:
            env["DS_ACCELERATOR"] = "cpu"
        return env
