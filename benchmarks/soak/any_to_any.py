"""Every strategy on every number of ranks goes on from what every other one has saved.

    pip install -c constraints.txt -e '.[train,test]' && python benchmarks/soak/any_to_any.py

On CPU over gloo, in fp32, without dropout, with a global batch of 8 samples. Each trains three
steps, saves, and trains five more; each loads every save, and trains those five too. In a cell that
passes, all parameters, Adam's moments and its count of steps are those that were saved, exactly,
and the five losses differ by at most 1e-5 from those of the run that was not disturbed; by nothing,
where strategy and number of ranks are the same. That loads without the moments, or without a part
of them, differ by a hundred times more shows that the losses would tell. Exit code 1 where a cell
fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from measure import RESULTS, machine, machine_line, save  # noqa: E402
from support.training_ranks import end, plan_file, start  # noqa: E402

RANKS = ROOT / "tests" / "support" / "zero_checkpoint_ranks.py"
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"name": "ddp"},
    "fsdp": {"name": "fsdp", "sharding": "full"},
    **{f"zero {stage}": {"name": "zero", "stage": stage} for stage in (1, 2, 3)},
}
LOST = {"moments": ["exp_avg", "exp_avg_sq"], "means": ["exp_avg"], "squares": ["exp_avg_sq"]}
CLOSE = 1e-5
"""Nats a byte."""
SHOWS = 1e-3
LIMIT = 3600.0
"""Seconds for one launch."""

Case = dict[str, Any]


def launch(cases: dict[str, Case], checkpoints: Path, *, world_size: int) -> dict[str, Case]:
    """Raises SystemExit with a rank's output where it fails."""
    with tempfile.TemporaryDirectory(prefix="ptx-any-to-any-") as folder:
        plan, out = plan_file(Path(folder), world_size=world_size), Path(folder, "found.pt")
        given = (str(out), str(checkpoints), json.dumps(cases))
        ranks = end(start(RANKS, *given, world_size=world_size, plan=plan), within=LIMIT)
        for rank in ranks:
            if rank.code:
                raise SystemExit(f"{rank.err}\na rank ended with {rank.code}")
        found: dict[str, Case] = torch.load(out)
        return found


def named(strategy: str, world_size: int) -> str:
    return f"{strategy} x{world_size}"


def train(worlds: list[int], strategies: list[str]) -> tuple[dict[str, Case], dict[str, Case]]:
    """What was saved, by its name, and what came of each load, by "SAVED -> LOADED"."""
    saved: dict[str, Case] = {}
    loaded: dict[str, Case] = {}
    with tempfile.TemporaryDirectory(prefix="ptx-checkpoints-") as folder:
        for world_size in worlds:
            cases = {named(s, world_size): {"strategy": STRATEGIES[s]} for s in strategies}
            saved |= launch(cases, Path(folder), world_size=world_size)
            print(f"saved by {', '.join(cases)}")
        for world_size in worlds:
            cases = {
                f"{source} -> {named(s, world_size)}": {"strategy": STRATEGIES[s], "from": source}
                for s in strategies
                for source in saved
            }
            for strategy in strategies:
                one = {"strategy": STRATEGIES[strategy], "from": next(iter(saved))}
                cases |= {
                    f"without {what} -> {named(strategy, world_size)}": one | {"without": kinds}
                    for what, kinds in LOST.items()
                }
            loaded |= launch(cases, Path(folder), world_size=world_size)
            print(f"loaded by {', '.join(named(s, world_size) for s in strategies)}")
    return saved, loaded


def apart(one: Case, other: Case) -> float:
    """The largest difference of two runs' losses."""
    return max(abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True))


def same_tensors(one: Case, other: Case) -> bool:
    """Out of the pieces, and the model as the engine itself gathers it."""
    return all(
        one[kind].keys() == other[kind].keys()
        and all(torch.equal(tensor, other[kind][key]) for key, tensor in one[kind].items())
        for kind in ("tensors", "state")
    )


def judged(name: str, saved: dict[str, Case], after: Case) -> dict[str, Any]:
    source, _, target = name.partition(" -> ")
    before = saved[source]
    difference = apart(before, after)
    tensors = same_tensors(before, after)
    steps = before["scalars"]["steps"] == after["scalars"]["steps"]
    near = difference == 0 if source == target else difference <= CLOSE
    return {
        "saved": source,
        "loaded": target,
        "tensors_equal": tensors,
        "steps_equal": steps,
        "loss_difference": difference,
        "passed": tensors and steps and near,
    }


def table(cells: list[dict[str, Any]], names: list[str]) -> str:
    by_pair = {(cell["saved"], cell["loaded"]): cell for cell in cells}
    wide = max(map(len, names)) + 1
    lines = [" " * wide + "".join(f"{name:>{wide}}" for name in names)]
    for source in names:
        row = [_shown(by_pair[source, target]) for target in names]
        lines.append(f"{source:{wide}}" + "".join(f"{text:>{wide}}" for text in row))
    return "\n".join(lines)


def _shown(cell: dict[str, Any]) -> str:
    if not cell["tensors_equal"] or not cell["steps_equal"]:
        return "LOST"
    difference = "0" if cell["loss_difference"] == 0 else f"{cell['loss_difference']:.0e}"
    return difference if cell["passed"] else f"{difference}!"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], choices=[1, 2, 4])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--save", type=Path, default=RESULTS / "any_to_any", metavar="STEM")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    where = machine(("torch", "deepspeed"))
    saved, loaded = train(given.ranks, given.strategies)
    cells = [judged(name, saved, case) for name, case in loaded.items() if name[:8] != "without "]
    first = next(iter(saved.values()))
    losses = {
        name: apart(first, case) for name, case in loaded.items() if name.startswith("without ")
    }
    passed = sum(cell["passed"] for cell in cells)
    seen = sum(difference > SHOWS for difference in losses.values())
    tensors = len(first["tensors"])
    text = "\n".join(
        (
            f"$ python benchmarks/soak/any_to_any.py {' '.join(sys.argv[1:])}".rstrip(),
            machine_line(where),
            "",
            "Largest difference of the next five losses (nats a byte); down: saved by, across:",
            f"loaded by. All {tensors} tensors and the count of steps are equal, or it says LOST.",
            "",
            table(cells, list(saved)),
            "",
            f"{passed} of {len(cells)} cells passed; {seen} of {len(losses)} loads that lost "
            f"moments show in the losses, by {min(losses.values()):.0e} and more",
        )
    )
    print(text)
    save(text, {"machine": where, "cells": cells, "without_moments": losses}, given.save)
    return 0 if passed == len(cells) and seen == len(losses) else 1


if __name__ == "__main__":
    raise SystemExit(main())
