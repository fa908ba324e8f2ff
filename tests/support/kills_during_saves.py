"""Two ranks that save at every step, killed with SIGKILL at random moments, resumed, killed again.

Usage: kills_during_saves.py FOLDER ROUNDS SEED. Prints one JSON object a round: what the kill left
behind, and whether the ranks that came next loaded, whole, the newest checkpoint that was
committed. Ranks are forked from this process, which has PyTorch loaded: a round takes no second.

Rounds take turns in saving in the background and not, and three of them share an attempt, so that
the step in whose save they were killed is saved again into the same folder.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from support.ports import free_port

from orchestrator.checkpoints.names import committed_folders, step_folders
from orchestrator.spec.policies import Checkpoint
from orchestrator.training.checkpoint.checkpoints import Checkpoints
from orchestrator.training.checkpoint.progress import Progress
from orchestrator.training.engines import build_engine
from orchestrator.training.engines.base import Engine
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.plan import load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import process_group, rank_from
from orchestrator.training.stop import StopVote

CONTEXT = 16
WORLD_SIZE = 2
STARTED = 60.0
"""Seconds in which ranks must have begun to save."""
LONGEST = 0.2
"""Seconds from there to the kill, at most."""


class Hashed(Checkpoints):
    """Writes down what is saved and what was loaded: step, and hash of parameters and moments."""

    def __init__(self, folder: Path, engine: Engine, *rest: Any) -> None:
        super().__init__(engine, *rest)
        self.folder, self.engine = folder, engine

    def resume(self, *, anew: bool) -> Progress:
        progress = super().resume(anew=anew)
        self._note("loaded", progress.step)
        return progress

    def save(
        self, progress: Progress, metrics: Mapping[str, float], *, last: bool = False
    ) -> str | None:
        self._note("saved", progress.step)
        return super().save(progress, metrics, last=last)

    def _note(self, what: str, step: int) -> None:
        digest = hashlib.sha256()
        for piece in self.engine.pieces():
            digest.update(piece.key.encode())
            digest.update(piece.tensor.numpy().tobytes())
        if self._rank.is_main:
            with (self.folder / what).open("a") as file:
                file.write(f"{step} {digest.hexdigest()}\n")


def rank(folder: Path, environ: dict[str, str]) -> None:
    """One rank, in its own process, until it is killed."""
    os.environ.update(environ)
    log = os.open(folder / f"log-{environ['RANK']}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    plan = load_plan(os.environ, gpus=0)
    prepare_arithmetic(plan.training)
    mine = rank_from(os.environ, plan)
    with process_group(plan, mine):
        layout = layout_of(plan, mine.rank)
        model = ByteTransformer(context=CONTEXT, dim=128, layers=2, heads=2)
        engine = build_engine(NextByte(model), plan, mine, layout)
        text = torch.tensor(list(Path(__file__).read_bytes()), dtype=torch.uint8)
        trainer = Trainer(engine, Windows(text, CONTEXT), plan, mine, layout)
        with StopVote() as stop, Hashed(folder, engine, plan, mine, layout) as checkpoints:
            trainer.fit(1_000_000, None, stop, checkpoints=checkpoints)


def fork(folder: Path, plan: Path, attempt: int) -> list[int]:
    (folder / "run" / "attempts" / f"{attempt:03d}").mkdir(parents=True, exist_ok=True)
    port = free_port()
    pids = []
    for number in range(WORLD_SIZE):
        pid = os.fork()
        if pid == 0:
            environ = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": WORLD_SIZE}
            environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PTX_ATTEMPT": attempt}
            try:
                rank(folder, {k: str(v) for k, v in environ.items()} | {"PTX_PLAN": str(plan)})
            finally:
                os._exit(1)  # whatever happened, this is no copy of the parent's work
        pids.append(pid)
    return pids


def kill(pids: list[int]) -> list[int]:
    """Their exit codes, negative for the signal that ended them."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def lines(path: Path) -> list[tuple[int, str]]:
    if not path.exists():
        return []
    pairs = (line.split() for line in path.read_text().splitlines())
    return [(int(step), digest) for step, digest in pairs]


def newest(root: Path) -> int:
    folders = committed_folders(root)
    return folders[-1].step if folders else 0


def left_behind(root: Path) -> str:
    """Where the kill came."""
    if any(root.glob("*/.manifest.json.*")):
        return "while committing"
    torn = [folder for folder in step_folders(root) if not folder.committed]
    if any(folder.step > newest(root) for folder in torn):
        return "while writing"
    return "while pruning" if torn else "between"


def one_round(folder: Path, plan: Path, attempt: int, moment: float) -> dict[str, Any]:
    root = folder / "run" / "checkpoints"
    wanted, loads, saves = newest(root), *(len(lines(folder / n)) for n in ("loaded", "saved"))
    torn = [one for one in step_folders(root) if not one.committed and one.step > wanted]
    cut_off = {one.step for one in torn if one.attempt == attempt}
    pids = fork(folder, plan, attempt)
    try:
        end = time.monotonic() + STARTED
        while len(lines(folder / "saved")) == saves and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(moment)
    finally:
        codes = kill(pids)
    found = lines(folder / "loaded")[loads:]
    step, digest = found[0] if found else (-1, "")
    known = {digest for saved, digest in lines(folder / "saved") if saved == step}
    return {
        "killed": codes == [-signal.SIGKILL] * WORLD_SIZE,
        "newest": wanted,
        "loaded": step,
        "whole": step == wanted and (step == 0 or known == {digest}),
        "left": left_behind(root),
        "again": bool(cut_off & {step for step, _ in lines(folder / "saved")[saves:]}),
    }


def main() -> int:
    folder, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    from support.training_ranks import plan_file

    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # the optimizer wants it, in each rank anew
    dice = random.Random(seed)  # noqa: S311 - moments, not secrets
    for number in range(rounds):
        settings = Checkpoint(
            every_steps=1, keep_last=1, keep_every=7, asynchronous=number % 2 == 0
        )
        training = {"micro_batch": 2, "optimizer": {"lr": 1e-3}}
        plan = plan_file(
            folder, world_size=WORLD_SIZE, training=training, checkpoint=settings.model_dump()
        )
        found = one_round(folder, plan, number // 3, dice.uniform(0.0, LONGEST))
        print(json.dumps(found | {"asynchronous": settings.asynchronous}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
