"""Runs a rendered launch.sh for real, with a launcher that only becomes the rank."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launchers import registry
from launchers.facts import Facts, Launch, Runtime
from orchestrator.plan.plan import Target
from orchestrator.plan.planner import plan
from orchestrator.render.bundle import Bundle
from orchestrator.render.renderer import render
from orchestrator.spec.job import JobSpec

DUMP = """
import json, os, sys
with open(os.path.join(os.environ["PTX_NODE_DIR"], "seen.json"), "w") as file:
    json.dump({"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}, file)
"""
_BECOME = "import os, sys; rank = sys.argv[sys.argv.index('--') + 1:]; os.execvp(rank[0], rank)"
_EXEC = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


class Plain:
    """One rank, no torch, no shim."""

    name = "plain"
    owned_flags = frozenset({"--owned-flag", "-o"})

    def render(self, facts: Facts) -> Launch:
        argv = (Runtime("${PTX_PYTHON}"), "-I", "-S", "-c", _BECOME, *facts.extra_args)
        return Launch(argv=argv, env={"FROM_LAUNCHER": Runtime("${PTX_NODE_RANK}")})


class OneRank:
    """One rank of a world of one, under the shim."""

    name = "one-rank"
    owned_flags: frozenset[str] = frozenset()

    def render(self, facts: Facts) -> Launch:
        argv = (Runtime("${PTX_PYTHON}"), "-I", "-S", "-c", _EXEC)
        return Launch(argv=argv, env={"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"})


def register_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILT_IN, "plain", (__name__, "Plain"))
    monkeypatch.setitem(registry._BUILT_IN, "one-rank", (__name__, "OneRank"))


@dataclass
class Launched:
    returncode: int
    output: str
    node_dir: Path
    bundle: Bundle

    @property
    def reached_the_launcher(self) -> bool:
        return (self.node_dir / "launching").exists()

    @property
    def seen(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.node_dir / "seen.json").read_text())
        return data


@dataclass
class Node:
    """A folder for one run, and the environment that its agent would give."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def render(self, spec: dict[str, Any]) -> Bundle:
        (self.folder / "work").mkdir(parents=True, exist_ok=True)
        (self.folder / "dump.py").write_text(DUMP)
        whole = JobSpec.model_validate(
            {
                "name": "x",
                "launcher": "plain",
                "entrypoint": {"script": "dump.py"},
                "workdir": "work",
                "resources": {"gpus_per_node": 0},
            }
            | spec
        )
        target = Target(sys.executable, self.folder, gpus=0, cpus=6)
        run_dir = self.folder / "x-000001"
        made = plan(whole, self.folder / "job.yaml", target, run_dir.name, run_dir)
        return render(whole, made, (), (), b"zip", b"name: x\n")

    def launch(self, spec: dict[str, Any]) -> Launched:
        bundle = self.render(spec)
        run_dir = bundle.run_dir
        node_dir = run_dir / "attempts" / "000" / "node-0000"
        node_dir.mkdir(parents=True)
        (run_dir / "bundle").mkdir()
        for file in bundle:
            (run_dir / "bundle" / file.path).write_bytes(file.data)
        given = {
            "PTX_RUN_DIR": str(run_dir),
            "PTX_BUNDLE": str(run_dir / "bundle"),
            "PTX_ATTEMPT": "0",
            "PTX_NODE_RANK": "0",
            "PTX_NODE_DIR": str(node_dir),
            "PTX_PORT": "23456",
        }
        done = subprocess.run(
            ["bash", str(run_dir / "bundle" / "launch.sh")],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder)} | given | self.env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return Launched(done.returncode, done.stdout, node_dir, bundle)
