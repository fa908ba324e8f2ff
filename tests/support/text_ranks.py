"""Run by each rank: load text as an entrypoint does, and say what it makes.

Usage: text_ranks.py CASES.json, where cases are `[{"options": {...}, "step_samples": n, "apart":
bool, "own": bool}, ...]`: `apart` gives every rank a cache, and a node, of its own; with `own` each
adds its number to the data's name. An error is said and the next case follows; that of the last
case ends the ranks. HOSTILE=<rank> in the environment names a rank that kills itself in the midst
of tokenising.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.training.entrypoint import run
from orchestrator.training.language import long_work
from orchestrator.training.language.dataset import TextData, TextOptions, load_text
from orchestrator.training.language.tokenizers import ByteTokenizer, Ids
from orchestrator.training.metrics import say
from orchestrator.training.plan import load_plan
from orchestrator.training.process_group import Rank, process_group, rank_from


class Reporting(ByteTokenizer):
    calls = 0

    def encode(self, texts: Any) -> list[Ids]:
        self.calls += 1
        if os.environ.get("HOSTILE") == os.environ["RANK"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)


def digest(data: TextData) -> str:
    found = hashlib.sha256()
    for part in (data.train, data.heldout):
        for index in range(len(part)):
            batch = part.take([index])
            found.update(batch.inputs["tokens"].numpy().tobytes() + batch.targets.numpy().tobytes())
    return found.hexdigest()


def loaded(case: dict[str, Any], rank: Rank) -> dict[str, Any]:
    tokenizer = Reporting()
    options = TextOptions(**case["options"])
    if case.get("apart"):
        rank = dataclasses.replace(rank, local_rank=0)
        place = os.environ["XDG_CACHE_HOME"] + f"/node-{rank.rank}"
        options = dataclasses.replace(options, cache=place)
    if case.get("own"):
        options = dataclasses.replace(options, data=f"{options.data}.{rank.rank}")
    data = load_text(options, tokenizer, rank, step_samples=case.get("step_samples", 1))
    return {"digest": digest(data), "calls": tokenizer.calls}


def main(argv: Sequence[str]) -> int:
    long_work.TICK_SECONDS = 0.2  # so that the ranks talk more than once in a test
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    *cases, last = json.loads(Path(argv[0]).read_text())
    with process_group(plan, rank):
        for case in cases:
            try:
                line = loaded(case, rank)
            except UserError as error:
                line = {"error": error.message}
            say(json.dumps(line))
        say(json.dumps(loaded(last, rank)))
    return 0


if __name__ == "__main__":
    run(main)
