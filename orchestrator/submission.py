"""From a spec's path to a job that a scheduler has: the steps, in order.

Until `submit` nothing is written and no scheduler is asked, so `prepare` alone is the dry run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.errors import SchedulerUnreachable, UserError
from orchestrator.runs.create import create_run
from orchestrator.runs.events import ClientEvents
from orchestrator.runs.ids import is_run_id, new_run_id
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.process import host_name, this_process, user_name
from orchestrator.runs.records import RunRecord
from orchestrator.runs.registry import register
from orchestrator.schedulers.environment import withheld

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan, Target
    from orchestrator.render.bundle import Bundle
    from orchestrator.schedulers.base import Scheduler
    from orchestrator.spec.effects import Effects
    from orchestrator.spec.loader import LoadedSpec
    from orchestrator.spec.overrides import Override


@dataclass(frozen=True)
class Choices:
    """What the command line says besides the spec; None leaves the spec's own word."""

    nodes: int | None = None
    gpus: str | None = None
    launcher: str | None = None
    scheduler: str | None = None
    name: str | None = None
    settings: tuple[str, ...] = ()
    """`key.path=value` each."""

    def overrides(self) -> list[str | Override]:
        """In the order in which they are applied; the named options win over --set."""
        from orchestrator.spec.overrides import Override

        named = (
            ("--nodes", "resources.nodes", self.nodes, False),
            ("--gpus", "resources.gpus_per_node", self.gpus, False),
            # One rank a GPU: a spec's number of CPU ranks has no say then.
            ("--gpus", "resources.procs_per_node", self._no_cpu_ranks(), False),
            ("--launcher", "launcher", self.launcher, True),
            ("--scheduler", "scheduler", self.scheduler, True),
            ("--name", "name", self.name, True),
        )
        return [
            *self.settings,
            *(
                Override(f"{option} {value}", path, str(value), is_text)
                for option, path, value, is_text in named
                if value is not None
            ),
        ]

    def _no_cpu_ranks(self) -> str | None:
        return "null" if (self.gpus or "").isdecimal() and self.gpus != "0" else None


@dataclass(frozen=True)
class Prepared:
    """A run that could be submitted as it stands."""

    loaded: LoadedSpec
    plan: Plan
    bundle: Bundle
    scheduler: Scheduler
    effects: Effects
    """Which of the spec's settings do nothing yet."""

    @property
    def layout(self) -> RunLayout:
        return RunLayout(self.bundle.run_dir)


def find_spec(text: str) -> tuple[Path, bool]:
    """The spec's path, and whether it is the one that ships with ptx.

    `jobs/NAME.yaml` means the shipped copy where the current folder has none.
    """
    path = Path(text)
    # os.path, because Path's own methods raise for a name that is too long.
    if len(path.parts) == 2 and path.parts[0] == "jobs" and not os.path.exists(path):  # noqa: PTH110
        from orchestrator.resources import data_dir

        shipped = data_dir("jobs") / path.name
        if os.path.isfile(shipped):  # noqa: PTH113
            return shipped, True
    return path, False


def prepare(path: Path, choices: Choices, root: Path, run_id: str | None = None) -> Prepared:
    """Load, check, plan and render. Raises UserError, SpecError with all that is wrong."""
    from orchestrator.agent.archive import agent_archive
    from orchestrator.plan.planner import plan as make_plan
    from orchestrator.render.renderer import render
    from orchestrator.schedulers.registry import get
    from orchestrator.spec.effects import not_yet
    from orchestrator.spec.loader import load

    loaded = load(path, choices.overrides())
    scheduler = get(loaded.spec.scheduler)
    target = scheduler.target(loaded.spec)
    _refuse_findings(loaded, target)
    run_id = _checked_id(run_id) if run_id else new_run_id(loaded.spec.name)
    plan = make_plan(loaded.spec, path, target, run_id, root / run_id, loaded.boolean_args)
    bundle = render(
        loaded.spec,
        plan,
        scheduler.render(loaded.spec, plan),
        scheduler.submit_argv(RunLayout(root / run_id)),
        agent_archive(),
        resolved_yaml(loaded),
    )
    return Prepared(loaded, plan, bundle, scheduler, not_yet(loaded.spec, _folder(loaded)))


def standalone_script(prepared: Prepared) -> bytes:
    """One sbatch file that does the same without ptx on the cluster. Raises UserError."""
    from orchestrator.agent.archive import agent_archive
    from orchestrator.render.standalone import standalone

    loaded = prepared.loaded
    script = loaded.spec.entrypoint.script
    try:
        text = (_folder(loaded) / script).read_bytes() if script else None
    except OSError as error:
        raise UserError(
            f"The entrypoint's script {script} cannot be read: {error.strerror}.",
            hint="--standalone looks into it for imports of ptx; check its permissions.",
        ) from error
    return standalone(loaded.spec, prepared.plan, agent_archive(), text)


def resolved_yaml(loaded: LoadedSpec) -> bytes:
    """The spec with every option applied, every default written out and its paths absolute:
    it says the same from any folder."""
    from orchestrator.spec.resolve import to_yaml

    spec, folder = loaded.spec, _folder(loaded)
    entrypoint = spec.entrypoint
    if entrypoint.script is not None:
        script = os.path.normpath(folder / entrypoint.script)
        entrypoint = entrypoint.model_copy(update={"script": script})
    workdir = None if spec.workdir is None else os.path.normpath(folder / spec.workdir)
    return to_yaml(spec.model_copy(update={"entrypoint": entrypoint, "workdir": workdir}))


def submit(prepared: Prepared, environ: Mapping[str, str] = os.environ) -> str:
    """Make the run folder and hand the bundle over; return the job id.

    The intent stands in the folder before the scheduler is called: whatever happens to this
    process after that, the next command finds out what became of the job.
    """
    _refuse_loss(prepared.effects)
    secrets = _secret_values(prepared.loaded.spec.secrets, environ)
    prepared.scheduler.check()
    layout = create_run(
        _record(prepared),
        prepared.bundle,
        prepared.loaded.text,
        secrets=secrets,
        group_shared=prepared.plan.group_shared,
    )
    events = ClientEvents(layout)
    events.append("intent", scheduler=prepared.plan.scheduler, **vars(this_process()))
    _register(layout)
    try:
        with withheld(secrets):  # SLURM keeps a job's environment in its spool and its database
            job_id = prepared.scheduler.submit(prepared.bundle, layout)
    except SchedulerUnreachable:
        raise  # it may have the job all the same: the next command looks for it
    except UserError as error:
        events.append("submit_failed", message=error.message)
        raise
    events.append("submitted", job_id=job_id)
    return job_id


def _folder(loaded: LoadedSpec) -> Path:
    """The spec's own; symbolic links stay, the path may mean the same on every node."""
    return Path(os.path.abspath(loaded.path)).parent  # noqa: PTH100


def _refuse_loss(effects: Effects) -> None:
    """Stop where somebody relies on something that does not happen yet."""
    sentences = [*effects.loses_work, *effects.refused]
    if sentences:
        keys = ", ".join(dict.fromkeys(sentence.partition(":")[0] for sentence in sentences))
        raise UserError(
            "\n  ".join(["The spec relies on settings that do nothing yet:", *sentences]),
            hint=f"Take out of the spec, or set back with --set: {keys}.",
        )


def _checked_id(run_id: str) -> str:
    if not is_run_id(run_id):
        raise UserError(f"{run_id!r} is no run id.", hint="One looks like quickstart-7f3kq9.")
    return run_id


def _secret_values(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    missing = [name for name in names if name not in environ]
    if missing:
        raise UserError(
            f"The spec names the secret {missing[0]}, which is not set here."
            if len(missing) == 1
            else f"The spec names secrets that are not set here: {', '.join(missing)}.",
            hint=f"export {missing[0]}=... and submit again.",
        )
    return {name: environ[name] for name in names}


def _record(prepared: Prepared) -> RunRecord:
    plan = prepared.plan
    return RunRecord(
        run_id=plan.run_id,
        name=plan.name,
        created=round(time(), 3),
        scheduler=plan.scheduler,
        launcher=plan.launcher,
        nodes=plan.nodes,
        procs_per_node=plan.procs_per_node,
        world_size=plan.world_size,
        user=user_name(),
        host=host_name(),
        spec_path=os.path.abspath(prepared.loaded.path),  # noqa: PTH100 - links stay
        ptx_version=__version__,
        argv=tuple(sys.argv),
    )


def _register(layout: RunLayout) -> None:
    """Without its row a run is still found by its path and in its root."""
    with contextlib.suppress(OSError):
        register(layout)


def _refuse_findings(loaded: LoadedSpec, target: Target) -> None:
    """What only this machine's numbers can tell of a local spec."""
    from orchestrator.spec.checks import check_target
    from orchestrator.spec.diagnostics import Diagnostic, SpecError

    findings = check_target(loaded.spec, target.gpus, target.cpus)
    if findings:
        raise SpecError(
            [
                Diagnostic(str(loaded.path), None, 1, found.code, found.message, found.help)
                for found in findings
            ]
        )
