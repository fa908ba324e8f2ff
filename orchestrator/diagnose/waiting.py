"""Why a run has not started: the scheduler's reason in words, and when it may start."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.diagnose.verdict import Verdict
from orchestrator.errors import SchedulerUnreachable
from orchestrator.runs.observe import Observed
from orchestrator.runs.state import State
from orchestrator.runs.words import sentence

REASONS = Path(__file__).with_name("waiting.toml")
_FIELDS = "%S|%r|%P|%D|%l|%b|%C"
"""squeue's: expected start, reason, partition, nodes, time limit, generic resources, cores."""


@dataclass(frozen=True)
class Request:
    """What squeue says of a job that waits. Texts as SLURM prints them, "" where it says none."""

    start: str = ""
    reason: str = ""
    partition: str = ""
    nodes: str = ""
    time: str = ""
    gres: str = ""
    cores: str = ""

    @property
    def size(self) -> str:
        many = f"{self.nodes} nodes" if self.nodes != "1" else "1 node"
        if self.gres:
            return f"{many} with {self.gres}"
        cores = "1 core" if self.cores == "1" else f"{self.cores} cores"
        return f"{many} ({cores})" if self.cores else many


def waiting(run: Observed, verdict: Verdict) -> Verdict:
    """The verdict on a pending run, with what its scheduler says. Asks SLURM at most once."""
    if run.state.state is State.SUBMITTING:
        cause = "the scheduler has not confirmed it yet"
        return replace(verdict, sentence=sentence(cause), cause=sentence(cause))
    if run.record.scheduler == "slurm" and run.state.job_id:
        return _slurm(verdict, run.state.job_id, run.job.reason if run.job else "")
    wanted = re.search(r"[Ww]aiting for (\d+) GPUs", run.state.reason)
    if wanted is None:
        return verdict
    return replace(
        verdict,
        cause=sentence(f"{wanted[1]} GPUs of this machine are not free, or runs before it wait"),
        next="`ptx gpus` shows who holds which; --gpus asks for fewer.",
    )


def _slurm(verdict: Verdict, job: str, reason: str) -> Verdict:
    request = ask(job)
    word = request.reason or reason
    known = explain(word, request, job)
    words = f"waiting in the queue: {known['why']}" if known else f"waiting in the queue ({word})"
    cause = known["why"] if known else ""
    told = [words]
    if request.nodes and request.size not in words:
        where = f" in partition {request.partition}" if request.partition else ""
        told.append(f"it asks for {request.size} for {request.time}{where}")
    if request.start:
        told.append(f"SLURM expects it to start at {request.start}")
    return replace(
        verdict,
        sentence=sentence("; ".join(told)),
        rule=f"slurm:{word}" if known else "",
        cause=sentence(cause) if cause else "",
        next=known["next"] if known else "",
    )


def explain(reason: str, request: Request, job: str) -> dict[str, str] | None:
    """Why and what next, for a reason that is known."""
    rows: dict[str, dict[str, str]] = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    name = reason.split(",")[0].strip("() ")
    row = rows.get(name) or rows.get(name.partition(":")[0]) or _by_prefix(rows, name)
    if row is None:
        return None
    slots: dict[str, Any] = {**vars(request), "size": request.size, "job": job}
    return {key: _filled(text, slots) for key, text in row.items()}


def _by_prefix(rows: dict[str, dict[str, str]], name: str) -> dict[str, str] | None:
    """`ReqNodeNotAvail, UnavailableNodes:n1` and the like begin with the reason."""
    return next((row for key, row in rows.items() if name.startswith(key)), None)


def _filled(text: str, slots: dict[str, Any]) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: str(slots.get(slot[1]) or "its own"), text)


def ask(job: str) -> Request:
    """Empty where SLURM does not answer or does not know the job."""
    from orchestrator.schedulers.slurm_command import ask as ask_slurm

    try:
        answer = ask_slurm(["squeue", "-h", "--start", f"--jobs={job}", "-o", _FIELDS], timeout=10)
    except SchedulerUnreachable:
        return Request()
    return parse(answer.out)


def parse(text: str) -> Request:
    """The first row that has all the fields; SLURM writes N/A and (null) for nothing."""
    for line in text.splitlines():
        fields = [part.strip() for part in line.split("|")]
        if len(fields) == 7:
            return Request(*("" if part in ("N/A", "(null)", "None") else part for part in fields))
    return Request()
