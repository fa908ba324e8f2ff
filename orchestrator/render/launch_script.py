"""launch.sh, which every node runs once."""

from __future__ import annotations

from launchers.facts import Launch, Runtime, Word
from orchestrator.plan.entrypoint import PYTHON
from orchestrator.plan.plan import Plan
from orchestrator.render.environment import check_names
from orchestrator.render.quoting import load_template
from orchestrator.spec.job import JobSpec


def launch_script(spec: JobSpec, plan: Plan, launch: Launch) -> bytes:
    """Pure. Raise UserError for values that no script carries faithfully."""
    check_names(spec.env, "env")
    check_names(spec.secrets, "secrets")
    interface = plan.rendezvous["interface"] or ""
    entrypoint = _entrypoint(plan)
    words = launch.rank_words(entrypoint)
    text = load_template("launch.sh.j2").render(
        scheduler=plan.scheduler,
        nodes=plan.nodes,
        procs_per_node=plan.procs_per_node,
        port=plan.rendezvous["port"],
        meets_at_port=launch.meets_at_port,
        nccl_interface=interface,
        interfaces=_names(interface),
        slots=",".join(str(slot) for slot in range(plan.gpus_per_node)),
        cpus_per_proc=plan.cpus_per_proc,
        launcher_env=sorted(launch.env.items()),
        env=sorted(spec.env.items()),
        setup=spec.setup,
        workdir=plan.workdir,
        python=plan.python,
        launcher_argv=launch.argv,
        entrypoint=words,
        dollars_doubled=words != entrypoint,
    )
    return text.encode()


def _entrypoint(plan: Plan) -> tuple[Word, ...]:
    first, *rest = plan.entrypoint
    return (Runtime("${PTX_PYTHON}") if first == PYTHON else first, *rest)


def _names(interface: str) -> list[str]:
    """The interfaces that are named; NCCL also takes `=name` for an exact name and `^name` for
    all others, which names none."""
    if not interface or interface.startswith("^"):
        return []
    return interface.removeprefix("=").split(",")
