"""Running a case of why_cases.py for real, and comparing what `ptx why` says of it."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.ptx import Ptx
from support.why_cases import ANY, Case, listener


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
        return bool(self.verdict["rule"] == self.case.rule)

    def __str__(self) -> str:
        return f"{self.case.name}: {json.dumps(self.verdict, indent=1)}"


def submit(case: Case, folder: Path, ptx: Ptx, stack: ExitStack) -> Path:
    """Start a case; returns its run folder. What it needs lives as long as `stack`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(case.script)
    spec: dict[str, Any] = {
        "name": case.name,
        "launcher": case.launcher,
        "entrypoint": {"script": "train.py"},
        "resources": {"procs_per_node": case.procs},
        **case.spec,
    }
    if case.listens:
        spec["rendezvous"] = {"port": stack.enter_context(listener())}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    return ptx.submit(path, "--scheduler", "local", "--gpus", "0")


def told(case: Case, run: Path, ptx: Ptx, *, limit: str = "120s") -> Told:
    """Wait for its end and ask why."""
    waited = ptx("wait", run.name, "--timeout", limit, timeout=150)
    assert waited.returncode == 1, f"{case.name}: {waited.stdout}{waited.stderr}{ptx.story(run)}"
    return Told(case, run, json.loads(ptx.ok("why", run.name, "--json")))
