"""Goes through the training loop in many ways in one launch of real ranks over gloo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.training_ranks import plan_file, run

SCRIPT = Path(__file__).with_name("loop_ranks.py")
Found = list[dict[str, Any]]


def through_loop(
    folder: Path, cases: dict[str, dict[str, Any]], *, world_size: int
) -> dict[str, Found]:
    """By case name, what each rank found; see `loop_ranks`."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, out = plan_file(folder, world_size=world_size), folder / "found"
    for rank in run(SCRIPT, str(out), json.dumps(cases), world_size=world_size, plan=plan):
        assert rank.code == 0, rank.err
    ranks = [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in range(world_size)]
    return {name: [rank[name] for rank in ranks] for name in cases}
