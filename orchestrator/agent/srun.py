"""The srun of one attempt's agents."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orchestrator.agent.allocation import Allocation
from orchestrator.agent.lifeline import PORT
from orchestrator.agent.spawn import spawn
from orchestrator.agent.stderr import tell


def start_srun(
    command: Sequence[str],
    allocation: Allocation,
    nodes: Sequence[str],
    attempt: int,
    *,
    again: bool,
    port: int,
    grace: float | None,
) -> int | None:
    """Its pid; None where it cannot be started. `again`: not the first one in this allocation;
    `port` is the supervisor's, `grace` what the agents give the ranks after SIGTERM."""
    program, *options = command
    # Agents and supervisor count the nodes in the same order, which is SLURM's own.
    chosen = [] if list(nodes) == allocation.nodes() else [f"--nodelist={','.join(nodes)}"]
    # SLURM counts a dead node's step as running, and what it held as taken, for good; memory is
    # shared between steps only where all of the job's is asked for.
    shared = ["--overlap", "--mem=0"] if again else []
    env = {
        **os.environ,
        "PTX_ATTEMPT": str(attempt),
        "PTX_BATCH_HOST": allocation.name,
        PORT: str(port),
        **({} if grace is None else {"PTX_GRACE": f"{grace:g}"}),
    }
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # It outlives a supervisor that is killed, for the next one (see takeover.py).
        argv = [program, *chosen, *shared, *options]
        return spawn(argv, env, mask=(), stdin=nothing, stdout=1, stderr=2, tied=False)
    except OSError as error:
        tell(f"{program} cannot be started: {error.strerror}")
        return None
    finally:
        os.close(nothing)
