"""From a spec's path to all that its run executes: the dry run.

Nothing is written here, and no scheduler is asked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.runs.ids import is_run_id, new_run_id
from orchestrator.runs.layout import RunLayout

if TYPE_CHECKING:
    from orchestrator.plan.plan import Plan, Target
    from orchestrator.render.bundle import Bundle
    from orchestrator.schedulers.base import Scheduler
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
    unread: list[str]
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
    loaded = load_spec(path, choices, root)
    run_id = _checked_id(run_id) if run_id else new_run_id(loaded.spec.name)
    return assemble(loaded, run_id, root / run_id)


def load_spec(path: Path, choices: Choices, root: Path) -> LoadedSpec:
    """Raises UserError, SpecError with all that is wrong."""
    from orchestrator.saves import save_of_name
    from orchestrator.spec.loader import load

    return load(path, choices.overrides(), save=partial(save_of_name, root))


def assemble(
    loaded: LoadedSpec,
    run_id: str,
    run_dir: Path,
    *,
    workdir: Path | None = None,
    resume_from: dict[str, int] | None = None,
) -> Prepared:
    """Plan and render a loaded spec. Raises UserError, SpecError.

    `workdir` is where the ranks work that the spec gives no place, by default the current folder;
    `resume_from` is the plan's.
    """
    from orchestrator.agent.archive import agent_archive
    from orchestrator.plan.planner import plan as make_plan
    from orchestrator.render.renderer import render
    from orchestrator.schedulers.registry import get
    from orchestrator.spec.effects import unread

    scheduler = get(loaded.spec.scheduler)
    target = scheduler.target(loaded.spec)
    if workdir is not None:
        target = replace(target, workdir=workdir)
    _refuse_findings(loaded, target)
    plan = make_plan(
        loaded.spec, loaded.path, target, run_id, run_dir, loaded.boolean_args, resume_from
    )
    bundle = render(
        loaded.spec,
        plan,
        scheduler.render(loaded.spec, plan),
        scheduler.submit_argv(RunLayout(run_dir)),
        agent_archive(),
        resolved_yaml(loaded),
    )
    return Prepared(loaded, plan, bundle, scheduler, unread(loaded.spec, _folder(loaded)))


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


def _folder(loaded: LoadedSpec) -> Path:
    """The spec's own; symbolic links stay, the path may mean the same on every node."""
    return Path(os.path.abspath(loaded.path)).parent  # noqa: PTH100


def _checked_id(run_id: str) -> str:
    if not is_run_id(run_id):
        raise UserError(f"{run_id!r} is no run id.", hint="One looks like quickstart-7f3kq9.")
    return run_id


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
