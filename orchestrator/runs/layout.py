"""Where everything of a run lies. Pure: names only, nothing is touched."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path


class RunLayout:
    """`<root>/<run id>`; every file below has exactly one writer."""

    def __init__(self, root: Path | str) -> None:
        """`root` as text is taken as it is: normal already, as ten thousand a look are."""
        self.path = os.fspath(root)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunLayout) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"RunLayout({self.path!r})"

    @cached_property
    def root(self) -> Path:
        return Path(self.path)

    @property
    def run_id(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def record(self) -> Path:
        """run.json: what submit intends, written before the scheduler is called."""
        return self.root / "run.json"

    @property
    def spec(self) -> Path:
        """The spec as the person wrote it, byte for byte."""
        return self.root / "spec.yaml"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def plan(self) -> Path:
        return self.bundle / "plan.json"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def events(self) -> Path:
        return self.root / "events"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    def model_description(self, attempt: int) -> Path:
        """What the model that this attempt trained can be made of from a checkpoint: all but its
        tensors. An attempt whose model is that of the one before has none."""
        return self.root / f"model-description.{attempt:03d}"

    @property
    def scheduler_log(self) -> Path:
        """What the batch script or the local supervisor itself printed."""
        return self.root / "scheduler.log"

    def attempt(self, attempt: int) -> Path:
        return self.root / "attempts" / f"{attempt:03d}"

    def metrics(self, attempt: int) -> Path:
        return self.attempt(attempt) / "metrics.jsonl"

    def node(self, attempt: int, node: int) -> Path:
        return self.attempt(attempt) / f"node-{node:04d}"

    def rank_log(self, attempt: int, node: int, rank: int) -> Path:
        return self.node(attempt, node) / f"rank-{rank:05d}.log"

    def exit_record(self, attempt: int, node: int, rank: int) -> Path:
        return self.node(attempt, node) / f"rank-{rank:05d}.exit.json"
