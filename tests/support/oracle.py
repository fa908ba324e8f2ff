"""Trains many cases in one launch of real ranks over gloo, and gives back their series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.training_ranks import all_well, plan_file, run

SCRIPT = Path(__file__).with_name("oracle_ranks.py")
Series = dict[str, dict[str, list[float]]]


def train(folder: Path, cases: dict[str, dict[str, Any]], *, world_size: int) -> Series:
    """By case name: `losses` and `grad_norms` of each step, `weights` at the end (one number)."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, out = plan_file(folder, world_size=world_size), folder / "series.json"
    all_well(run(SCRIPT, str(out), json.dumps(cases), world_size=world_size, plan=plan))
    found: Series = json.loads(out.read_text())
    assert set(found) == set(cases)
    return found


def engines(folder: Path, *checks: str, world_size: int) -> list[dict[str, Any]]:
    """What each rank saw in these checks of `engine_ranks`, by check."""
    plan, out = plan_file(folder, world_size=world_size), folder / "seen"
    script = SCRIPT.with_name("engine_ranks.py")
    all_well(run(script, str(out), *checks, world_size=world_size, plan=plan))
    return [json.loads(Path(f"{out}-{rank}.json").read_text()) for rank in range(world_size)]
