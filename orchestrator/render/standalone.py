"""A job in one sbatch file, for a cluster without ptx."""

from __future__ import annotations

import ast
from base64 import encodebytes
from dataclasses import replace
from hashlib import sha256

from orchestrator.errors import UserError
from orchestrator.plan.plan import Plan
from orchestrator.render.bundle import BundleFile
from orchestrator.render.launch_script import launch_script
from orchestrator.render.launcher import launch
from orchestrator.render.quoting import Shell, heredoc, load_template, quote
from orchestrator.render.renderer import plan_json
from orchestrator.render.sbatch import srun_options
from orchestrator.render.sbatch_header import header, job_options
from orchestrator.spec.job import JobSpec

_OURS = frozenset({"orchestrator", "launchers"})


def standalone(
    spec: JobSpec, plan: Plan, agent_archive: bytes, script: bytes | None = None
) -> bytes:
    """Pure. `script` is the text of the spec's entrypoint script, where it has one.

    The run id and the run folder are made from the job id when it starts; python is the spec's,
    else the cluster's python3; secrets come from the environment at sbatch. Raise UserError for
    another scheduler than SLURM and for an entrypoint that imports ptx.
    """
    if plan.scheduler != "slurm":
        raise UserError(
            f"--standalone writes an sbatch file, but the spec's scheduler is {plan.scheduler}",
            hint="add --scheduler slurm",
        )
    _refuse_ptx_entrypoint(spec, script)
    there = replace(plan, python=spec.python or "python3", run_id=spec.name, run_dir="", secrets=())
    node_script = _node_script(spec, there, agent_archive)
    text = load_template("standalone.sbatch.j2").render(
        header=header([("job-name", spec.name), *job_options(spec, there), ("no-requeue", True)]),
        name=spec.name,
        secrets=spec.secrets,
        srun=srun_options(there),
        mark=_mark(node_script),
        node_script=node_script,
    )
    return text.encode()


def _node_script(spec: JobSpec, plan: Plan, agent_archive: bytes) -> Shell:
    launched, configs = launch(plan, spec.launcher.args)
    files = (
        BundleFile("launch.sh", launch_script(spec, plan, launched)),
        *configs,
        BundleFile("plan.json", plan_json(plan)),
    )
    return Shell(
        load_template("standalone_node.sh.j2").render(
            files=[heredoc(_there(file.path), file.data.decode()) for file in files],
            agent=heredoc(
                _there("agent.pyz"), encodebytes(agent_archive).decode(), program="base64 -d"
            ),
        )
    )


def _there(name: str) -> Shell:
    return Shell(f'"$ptx_bundle"/{quote(name)}')


def _mark(text: str) -> Shell:
    return Shell("PTX_NODE_" + sha256(text.encode()).hexdigest()[:16])


def _refuse_ptx_entrypoint(spec: JobSpec, script: bytes | None) -> None:
    entrypoint = spec.entrypoint
    module = (entrypoint.module or "").partition(".")[0]
    if module in _OURS or (script is not None and imports_ptx(script)):
        raise UserError(
            f"the entrypoint {entrypoint.module or entrypoint.script} imports ptx, which a "
            f"standalone job runs without",
            hint="use `ptx submit`, or an entrypoint that needs torch alone",
        )


def imports_ptx(script: bytes) -> bool:
    """Whether a Python script imports ptx's packages anywhere; false for what does not parse."""
    try:
        tree = ast.parse(script)
    except (SyntaxError, ValueError):
        return False
    return any(_OURS & set(_imported(node)) for node in ast.walk(tree))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module.partition(".")[0]]
    return []
