"""From plan to bundle. Pure: no clock, no network, no environment; only templates are read."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.plan.plan import Plan
from orchestrator.render.bundle import Bundle, BundleFile
from orchestrator.render.launch_script import launch_script
from orchestrator.render.launcher import launch
from orchestrator.spec.job import JobSpec


def render(
    spec: JobSpec,
    plan: Plan,
    scheduler_files: tuple[BundleFile, ...],
    submit_argv: tuple[str, ...],
    agent_archive: bytes,
    spec_yaml: bytes,
) -> Bundle:
    """Everything the run executes, in a stable order.

    `spec_yaml` is kept byte for byte. Raise UserError for values that cannot be carried.
    """
    launched, launcher_files = launch(plan, spec.launcher.args)
    return Bundle(
        run_id=plan.run_id,
        run_dir=Path(plan.run_dir),
        scheduler=plan.scheduler,
        files=(
            *scheduler_files,
            BundleFile("launch.sh", launch_script(spec, plan, launched)),
            *launcher_files,
            BundleFile("plan.json", plan_json(plan)),
            BundleFile("spec.yaml", spec_yaml),
            BundleFile("agent.pyz", agent_archive, binary=True),
        ),
        submit_argv=submit_argv,
    )


def plan_json(plan: Plan) -> bytes:
    try:
        return plan.to_json().encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{error.object[error.start]!a} in a value or path of this run is no UTF-8",
            hint="rename the folder, or write the character itself",
        ) from error
