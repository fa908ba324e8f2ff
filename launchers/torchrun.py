"""torchrun: torch's own elastic launcher."""

from __future__ import annotations

from launchers.facts import Facts, Launch, Runtime, Word

ENDPOINT = "${PTX_HEAD_ADDR}:${PTX_HEAD_PORT}"
# After SIGTERM torchrun gives the other ranks 30 s; a failed run has to be over by then.
# As a variable, because a torch older than the flag of that name ignores it.
SHUTDOWN: dict[str, Word] = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "10"}


class Torchrun:
    name = "torchrun"
    owned_flags = frozenset(
        {
            "--nnodes",
            "--nproc-per-node",
            "--standalone",
            "--rdzv-backend",
            "--rdzv-endpoint",
            "--rdzv-id",
            "--rdzv-conf",
            "--node-rank",
            "--master-addr",
            "--master-port",
            "--local-addr",
            "--max-restarts",
            "--no-python",
            "--module",
            "--run-path",
            "-m",
        }
    )

    def render(self, facts: Facts) -> Launch:
        return Launch(
            argv=(
                Runtime("${PTX_PYTHON}"),
                "-m",
                "torch.distributed.run",
                *facts.extra_args,
                f"--nnodes={facts.nodes}",
                f"--nproc-per-node={facts.procs_per_node}",
                "--max-restarts=0",
                *self._rendezvous(facts),
                "--no-python",
            ),
            env=self._env(facts),
            halves_dollars=True,
        )

    def _env(self, facts: Facts) -> dict[str, Word]:
        if facts.gpus_per_node == 0 and facts.strategy == "zero":
            return SHUTDOWN | {"DS_ACCELERATOR": "cpu"}
        return SHUTDOWN

    def _rendezvous(self, facts: Facts) -> tuple[Word, ...]:
        if facts.nodes == 1:
            # Finds its own port, so that two runs on one machine never meet.
            return ("--standalone",)
        if facts.rdzv_backend == "static":
            return (
                "--rdzv-backend=static",
                f"--rdzv-id={facts.run_id}",
                f"--rdzv-conf=timeout={facts.rdzv_timeout}",
                Runtime("--node-rank=${PTX_NODE_RANK}"),
                Runtime("--master-addr=${PTX_HEAD_ADDR}"),
                Runtime("--master-port=${PTX_HEAD_PORT}"),
                Runtime("--local-addr=${PTX_LOCAL_ADDR}"),
            )
        return (
            "--rdzv-backend=c10d",
            Runtime(f"--rdzv-endpoint={ENDPOINT}"),
            Runtime(f"--rdzv-id={facts.run_id}.${{PTX_ATTEMPT}}"),
            Runtime("--rdzv-conf=" + c10d_conf(facts)),
            Runtime("--local-addr=${PTX_LOCAL_ADDR}"),
        )


def c10d_conf(facts: Facts) -> str:
    """Left to guess, torch finds no host for the store where the head's name is an alias.

    `read_timeout` is also how long a node waits for a head that starts later than itself.
    """
    return (
        "is_host=${PTX_IS_HEAD},"
        f"join_timeout={facts.rdzv_timeout},read_timeout={facts.rdzv_timeout}"
    )
