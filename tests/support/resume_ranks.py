"""Run by each rank: trains, is stopped, and goes on, in many ways, and writes what each gave.

Usage: resume_ranks.py OUT CASES, where CASES is a JSON object of cases by name; a case is
`{"training": {...}, "strategy": {...}, "checkpoint": {...}, "steps": n, "starts": [...], ...}`. It
is trained once undisturbed, and in another run folder by one attempt for each of `starts`, which
says what happens when a rank reads its n-th micro batch, as `{"stop": [n, how]}`: see `Data`; which
`damage` is done before, by rank 0, to the newest checkpoint or to `all`: see DAMAGES; which rank's
files are `stale`; or other settings than the case's. `evaluation` holds the held-out loss after
each step. Each rank writes OUT.<rank>.json.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import TypeAdapter

from orchestrator.checkpoints import tensor_file
from orchestrator.errors import UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.spec.policies import Checkpoint, Logging
from orchestrator.spec.strategy import Strategy
from orchestrator.spec.training import Training
from orchestrator.training.agent_files import AgentFiles
from orchestrator.training.batch import Batch
from orchestrator.training.checkpoint import resume
from orchestrator.training.checkpoint.checkpoints import Checkpoints
from orchestrator.training.engines import build_engine
from orchestrator.training.engines.base import Engine
from orchestrator.training.entrypoint import run
from orchestrator.training.evaluation import Evaluate
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.stop import StopVote

CONTEXT = 16
TEXT = torch.tensor(list(Path(__file__).read_bytes()), dtype=torch.uint8)


class Dropping(ByteTransformer):
    """What is drawn at a step depends on what was drawn before."""

    steps, overflow_at = 0, 0
    """Micro batches so far; the one whose gradients are infinite, though its loss is not."""

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        scores = F.dropout(super().forward(tokens, positions), 0.1, self.training)
        if self.training:
            Dropping.steps += 1
            if Dropping.steps == Dropping.overflow_at:
                scores.register_hook(lambda gradient: gradient * float("inf"))
        return scores


class Data(Windows):
    """With the faults of an attempt built in: `sigterm` to rank 1, the agent's stop `file` for rank
    0, an `unreadable` record, a disk that is `full` for rank 1 and has `room` again, and a new
    attempt while this one is not `over`."""

    def __init__(self, stops: list[Any], rank: Rank, stop_file: Path, attempts: Path) -> None:
        super().__init__(TEXT, CONTEXT)
        self.faults = dict(zip(stops[::2], stops[1::2], strict=True))
        self.rank, self.stop_file, self.attempts = rank, stop_file, attempts
        self.taken: list[list[int]] = []

    def take(self, indices: Sequence[int]) -> Batch:
        self.taken.append(list(indices))
        match self.faults.get(len(self.taken)), self.rank.rank:
            case "sigterm", 1:
                os.kill(os.getpid(), signal.SIGTERM)
            case "file", 0:
                self.stop_file.write_text('{"v": 1, "reason": "time-limit", "by": null}')
            case "over", 0:
                (self.attempts / "001").mkdir()
            case "unreadable", _:
                raise UserError("a record cannot be read")
            case "full", 1:
                largest_file(4096)
            case "room", 1:
                largest_file(resource.RLIM_INFINITY)
        return super().take(indices)


def largest_file(size: int) -> None:
    """Writing beyond it fails, as on a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "torn": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": _flip,
    "missing": lambda path: path.unlink(),
    "everybody's": lambda path: path.chmod(0o602),
    "the group's": lambda path: path.chmod(0o620),
    "the group's folder": lambda path: path.parent.chmod(0o770),
    "somebody's": lambda path: os.chown(path, 12345, -1),
}


def damage(case: dict[str, Any], checkpoints: Path) -> None:
    """To one file of the newest checkpoint, or of all."""
    how, name = case.get("damage"), case.get("file", "rank-00001.safetensors")
    for folder in sorted(checkpoints.iterdir())[0 if case.get("all") else -1 :] if how else ():
        DAMAGES[how](folder / name)


@contextmanager
def stale(is_so: bool) -> Iterator[None]:
    """What a file server that has forgotten this client answers: none can be made to do it here."""

    def answer(path: Path) -> str:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    was = tensor_file.sha256_of, resume.PAUSES
    if is_so:
        tensor_file.sha256_of, resume.PAUSES = answer, (0.1, 0.1, 0.1)  # type: ignore[assignment]
    try:
        yield
    finally:
        tensor_file.sha256_of, resume.PAUSES = was


def attempt(
    plan: TrainingPlan, rank: Rank, case: dict[str, Any], run_dir: Path, number: int
) -> dict[str, Any]:
    """One start of a run."""
    training = Training.model_validate(case["training"])
    prepare_arithmetic(training)
    strategy = TypeAdapter[Strategy](Strategy).validate_python(
        case.get("strategy", {"name": "ddp"})
    )
    where = RunLayout(run_dir)
    where.attempt(number).mkdir(parents=True, exist_ok=True)
    plan = dataclasses.replace(
        plan,
        training=training,
        strategy=strategy,
        logging=Logging(every_steps=case.get("every_steps", 1)),
        checkpoint=Checkpoint.model_validate(case["checkpoint"]),
        run_dir=run_dir,
        metrics_path=where.metrics(number),
        attempt=number,
        resume_from=case.get("resume_from"),
    )
    layout = layout_of(plan, rank.rank)
    each = training.micro_batch * training.accumulation
    plan = dataclasses.replace(plan, global_batch=each * layout.data_size)
    Dropping.steps, Dropping.overflow_at = 0, case.get("overflow", {}).get(str(rank.rank), 0)
    torch.manual_seed(0)  # the weights are no matter of which cases came before
    objective = NextByte(Dropping(context=CONTEXT, dim=16, layers=2, heads=2))
    engine = build_engine(objective, plan, rank, layout)
    torch.manual_seed(training.seed + layout.data_rank)
    stop_file = run_dir / f"stop-{number}"
    files = AgentFiles(stop_file, run_dir / "step") if rank.local_rank == 0 else AgentFiles()
    data = Data(case.get("stop", []), rank, stop_file, where.attempt(0).parent)
    if rank.is_main:
        damage(case, where.checkpoints)
    dist.barrier()
    ticks = itertools.count(step=case.get("seconds_a_look", 0))
    found: dict[str, Any] = {"error": None}
    with (
        stale(case.get("stale") == rank.rank),
        MetricsWriter.of(plan, rank) as writer,
        StopVote(files) as stop,
        Checkpoints(engine, plan, rank, layout, lambda: next(ticks)) as checkpoints,
    ):
        try:
            outcome = Trainer(engine, data, plan, rank, layout).fit(
                case["steps"],
                writer,
                stop,
                held_out(case, engine),
                checkpoints,
                samples=case.get("samples"),
            )
            found |= dataclasses.asdict(outcome)
        except UserError as error:
            found["error"] = f"{error.code}: {error.message}"
        largest_file(resource.RLIM_INFINITY)
    records = where.metrics(number).read_text().splitlines() if rank.is_main else []
    return found | {
        "records": [json.loads(line) for line in records],
        "taken": data.taken,
        "checkpoints": sorted(path.name for path in where.checkpoints.glob("*")),
        "step_file": (run_dir / "step").exists(),
    }


def held_out(case: dict[str, Any], engine: Engine) -> Evaluate | None:
    if "evaluation" not in case:
        return None
    return lambda: float(case["evaluation"][engine.scalars()["steps"] - 1])


def main(argv: Sequence[str]) -> int:
    out, cases = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    found = {}
    assert plan.run_dir is not None
    with process_group(plan, rank):
        for name, case in json.loads(cases).items():
            starts = case.pop("starts")
            folder = plan.run_dir / name
            found[name] = {
                "undisturbed": attempt(plan, rank, case, folder / "undisturbed", 0),
                "starts": [
                    attempt(plan, rank, case | start, folder / "disturbed", number)
                    for number, start in enumerate(starts)
                ],
            }
    Path(f"{out}.{rank.rank}.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    run(main)
