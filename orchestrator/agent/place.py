"""Which attempt of which run this is, on which of its nodes, and where its files lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLAN_VERSION = 1


class NotStartable(Exception):
    """Why this node cannot begin, in one sentence."""


def read_plan(path: Path) -> dict[str, Any]:
    """Raises NotStartable."""
    try:
        plan = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise NotStartable(f"the plan {path} cannot be read: {error}") from error
    version = plan.get("version") if isinstance(plan, dict) else None
    if version != PLAN_VERSION:
        raise NotStartable(f"the plan {path} has version {version}, this agent reads 1")
    return dict(plan)


def mark_of(run_dir: Path, run_id: str, attempt: int, node_rank: int) -> str:
    """What every process of this attempt on this node bears in its environment.

    With the folder: two clusters may give out one job id, and an agent that ended would take the
    other run's ranks for its strays.
    """
    return f"{run_id}:{attempt}:{node_rank}:{run_dir}"


class Place:
    """Attempt (the supervisor's word) and node rank (the scheduler's), and the paths they name."""

    def __init__(self, plan_path: Path, plan: Mapping[str, Any], env: Mapping[str, str]) -> None:
        # A local run started inside an allocation sees SLURM's names, which are not about it.
        slurm = plan["scheduler"] != "local"
        self.attempt = _number(env, "PTX_ATTEMPT")
        self.node_rank = _number(env, "SLURM_NODEID" if slurm else None, "PTX_NODE_RANK")
        self.plan_path = plan_path
        self.bundle = plan_path.parent
        self.run_id: str = plan["run_id"]
        self.run_dir = Path(plan["run_dir"])
        self.node_dir = (
            self.run_dir / "attempts" / f"{self.attempt:03d}" / f"node-{self.node_rank:04d}"
        )
        self.events = (
            self.run_dir / "events" / f"a{self.attempt:03d}-node-{self.node_rank:04d}.jsonl"
        )
        self.launching = self.node_dir / "launching"
        """Made by launch.sh just before it becomes the launcher."""
        self.mark = mark_of(self.run_dir, self.run_id, self.attempt, self.node_rank)
        self.shared = bool(plan["group_shared"])
        self.file_mode = 0o660 if self.shared else 0o600

    def make_folders(self) -> None:
        """Raises OSError. Other nodes make the upper ones at the same time."""
        for folder in (
            self.events.parent,
            self.run_dir / "attempts",
            self.node_dir.parent,
            self.node_dir,
        ):
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            folder.chmod(0o2770 if self.shared else 0o700)
        # An attempt number that a scheduler gives twice must not inherit the first one's success.
        self.launching.unlink(missing_ok=True)
        for record in self.node_dir.glob("rank-*.exit.json"):
            record.unlink(missing_ok=True)


def _number(env: Mapping[str, str], *names: str | None) -> int:
    for name in names:
        value = env.get(name, "") if name else ""
        if value.isdigit():
            return int(value)
    return 0
