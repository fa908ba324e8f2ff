"""Running a case of why_cases.py for real, and comparing what `ptx why` says of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.ptx import Ptx
from support.why_case import ANY, Case, listener
from support.why_healthy import HEAD, QUIET_END, Healthy
from support.why_slurm_cases import SlurmCase

GOAL = 0.95
"""Of the causes that are claimed, so many must be right."""


@dataclass(frozen=True)
class Told:
    case: Case
    run: Path
    verdict: dict[str, Any]
    """What `ptx why --json` printed."""

    @property
    def rank(self) -> int | None:
        first = self.verdict["first"]
        return first["rank"] if first else None

    @property
    def rank_right(self) -> bool:
        return self.case.rank == ANY or self.rank == self.case.rank

    @property
    def state_right(self) -> bool:
        return bool(self.verdict["class"] == self.case.state)

    @property
    def rule_right(self) -> bool:
        return bool((self.verdict["rule"] or None) == (self.case.rule or None))

    def __str__(self) -> str:
        return f"{self.case.name}: {json.dumps(self.verdict, indent=1)}"


def good_enough(verdicts: Sequence[Told]) -> bool:
    """Every rank and class right, and of the causes that are claimed as many as must be."""
    claimed = [one.rule_right for one in verdicts if one.verdict["rule"]]
    known = all(one.rank_right and one.state_right for one in verdicts)
    return known and sum(claimed) >= GOAL * len(claimed)


def submit(case: Case, folder: Path, ptx: Ptx, stack: ExitStack) -> Path:
    """Start a case; returns its run folder. What it needs lives as long as `stack`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(case.script)
    slurm = isinstance(case, SlurmCase)
    resources: dict[str, Any] = {"procs_per_node": case.procs}
    if isinstance(case, SlurmCase):
        resources |= {"nodes": case.nodes, "gpus_per_node": 0} | case.resources
    spec: dict[str, Any] = {
        "name": case.name,
        "scheduler": "slurm" if slurm else "local",
        "launcher": case.launcher,
        "entrypoint": {"script": "train.py"},
        "resources": resources,
        **case.spec,
    }
    if case.listens:
        spec["rendezvous"] = {"port": stack.enter_context(listener())}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return ptx.submit(path, *(() if slurm else ("--gpus", "0")))


def submit_script(ptx: Ptx, folder: Path, name: str, script: str, launcher: str) -> Path:
    """Two ranks of a script on this machine; returns the run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(script)
    spec = {
        "name": name,
        "launcher": launcher,
        "entrypoint": {"script": "train.py"},
        "resources": {"procs_per_node": 2},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(spec))
    return ptx.submit(folder / "job.yaml", "--scheduler", "local", "--gpus", "0")


def ask_healthy(
    ptx: Ptx, folder: Path, one: Healthy, *, silent: bool
) -> tuple[str, dict[str, Any]]:
    """Name and `ptx why --json` of a run that does well; with `silent` rank 1 leaves with 3 at
    its end, without a word."""
    name = f"{one.name}-silent" if silent else one.name
    script = HEAD + one.script + (QUIET_END if silent else "")
    run = submit_script(ptx, folder / name, name, script, one.launcher)
    waited = ptx("wait", run.name, "--timeout", "100s")
    assert waited.returncode == int(silent), ptx.story(run)
    return name, json.loads(ptx.ok("why", run.name, "--json"))


def told(case: Case, run: Path, ptx: Ptx, *, limit: str = "120s") -> Told:
    """Do what the case does to the run, wait for its end (where it comes) and ask why."""
    kind = "failed"
    if isinstance(case, SlurmCase):
        kind, limit = case.kind_told, "280s"
        if case.act is not None:
            case.act(ptx, run)
    if kind != "waiting":
        waited = ptx("wait", run.name, "--timeout", limit, timeout=300)
        assert waited.returncode == 1, (
            f"{case.name}: {waited.stdout}{waited.stderr}{ptx.story(run)}"
        )
    verdict = json.loads(ptx.ok("why", run.name, "--json"))
    if kind == "waiting":
        ptx.ok("cancel", run.name)
    assert verdict["verdict"] == kind, f"{case.name}: {verdict}"
    return Told(case, run, verdict)
