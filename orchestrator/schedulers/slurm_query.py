"""The state of many jobs with few questions: squeue for what it still knows, sacct for the rest.

squeue forgets a job MinJobAge (300 s by default) after its end. sacct knows it for good, but
many sites run no accounting, so an sacct that fails is normal. Where neither knows a job its
state is unknown, which says nothing about success or failure.

Every question names the runs besides their jobs: a cluster that shares this person's home with
the run's own, or one that was set up anew, has other jobs of the same numbers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping

from orchestrator.errors import SchedulerUnreachable
from orchestrator.runs.array import element_of
from orchestrator.schedulers.base import JobInfo, JobState
from orchestrator.schedulers.slurm_accounting import CHUNK, chunks, sacct
from orchestrator.schedulers.slurm_arrays import elements, elements_from_sacct
from orchestrator.schedulers.slurm_command import Answer, ask, ping, sentence, unreachable
from orchestrator.schedulers.slurm_states import (
    SACCT_FORMAT,
    SQUEUE_FORMAT,
    parse_sacct,
    parse_squeue,
)

_JOB_ID = re.compile(r"[0-9]{1,20}(?:[_+][0-9]{1,20})?")
"""A damaged events file may name any text: SLURM would refuse the whole question for it."""
_EVER = ("-Snow-365days", "-Enow+365days")
"""sacct asked by name looks at what was eligible since last midnight: not at a job of yesterday,
nor at one that is deferred."""


def query(jobs: Mapping[str, str], may_have_begun: Callable[[str], bool]) -> list[JobInfo]:
    """One JobInfo a job (job id -> the name that SLURM knows it by), in the order given.

    `may_have_begun` is asked of elements of arrays that nobody knows. Never raises for a SLURM that
    does not answer.
    """
    known: dict[str, JobInfo] = {}
    answered = True
    why = "neither squeue nor sacct knows this job"
    asked = {job_id: name for job_id, name in jobs.items() if _JOB_ID.fullmatch(job_id)}
    try:
        ping()
        known |= _from_squeue(asked)
    except SchedulerUnreachable as error:
        answered, why = False, error.message
    absent = {job_id: name for job_id, name in asked.items() if job_id not in known}
    known |= _from_sacct({job_id: name for job_id, name in absent.items() if "_" not in job_id})
    apart = {job_id: name for job_id, name in absent.items() if "_" in job_id}
    gone = [job_id for job_id in apart if answered and not may_have_begun(job_id)]
    known |= elements_from_sacct(apart, gone)
    return [known.get(job_id) or JobInfo(job_id, JobState.UNKNOWN, why) for job_id in jobs]


def find(name: str) -> str | None:
    """The newest job of this user that bears this name.

    Raises SchedulerUnreachable when squeue does not answer: that is not "there is none".
    """
    for rows in _named_jobs(name):
        if ids := [int(job_id) for job_id in rows if job_id.isdigit()]:
            return str(max(ids))
    return None


def living(run_id: str, ended: str | None) -> str | None:
    """One of the run's that waits, or that runs and is not `ended`; raises as `find`."""
    element = element_of(run_id)
    # SLURM has an element under its array's name until it goes on in a job of its own.
    suffixes = {element.array: f"_{element.number}"} if element else {}
    suffixes[run_id] = ""
    ping()
    # Of anybody: a run that a group shares may be another's job.
    which = ["-r", "--all", f"--name={','.join(suffixes)}"]
    answer = ask(["squeue", "-h", *which, "-o", "%i|%T|%j"])
    if answer.code != 0:
        raise unreachable(sentence(answer.err) or f"squeue ended with {answer.code}")
    rows = (line.strip().split("|", 2) for line in answer.out.splitlines())
    for job_id, state, name in (row for row in rows if len(row) == 3):
        if name not in suffixes or not job_id.endswith(suffixes[name]):
            continue
        if state != "COMPLETING" and (state == "PENDING" or job_id != ended):
            return job_id
    return None


def find_elements(array: str) -> dict[int, str]:
    """The jobs of this user's array of this name, by number of the element; raises as `find`."""
    found: dict[int, str] = {}
    for rows in _named_jobs(array):
        for job_id in (one for row in rows for one in elements(row) or [row]):
            index = job_id.partition("_")[2]
            if index.isdigit():
                found.setdefault(int(index), job_id)
    return found


def _named_jobs(name: str) -> Iterator[list[str]]:
    """Ids of this user's jobs of one name: those that squeue knows, then those that sacct does."""
    ping()
    user = f"--user={os.getuid()}"
    fields = ["-h", "-r", "--all", "--states=all", "-o", "%i|%T|%j"]
    answer = ask(["squeue", *fields, user, f"--name={name}"])
    if answer.code != 0:
        raise unreachable(sentence(answer.err) or f"squeue ended with {answer.code}")
    yield _ids(answer.out, name)
    fields = ["-n", "-P", "-X", "--format=JobID,State,JobName"]
    try:
        answer = ask(["sacct", *fields, user, f"--name={name}", *_EVER])
    except SchedulerUnreachable:
        return
    yield _ids(answer.out, name)


def _ids(text: str, name: str) -> list[str]:
    rows = (line.strip().split("|", 2) for line in text.splitlines())
    return [row[0] for row in rows if len(row) == 3 and row[2] == name]


def _from_squeue(jobs: Mapping[str, str]) -> dict[str, JobInfo]:
    """One question, however many there are: asked for some, squeue gets all from the controller
    and leaves the others out itself."""
    if len(jobs) > CHUNK:
        fields = ["-o", f"{SQUEUE_FORMAT}|%j"]
        answer = ask(["squeue", "-h", "--all", *_each(jobs), "--states=all", *fields])
        _refuse_silence(answer)
        return parse_squeue(_named(answer.out, jobs))
    if not jobs:
        return {}
    which = next(chunks(jobs))
    # A single unknown id is an error to squeue ("Invalid job id"), among others it is not.
    answer = ask(["squeue", "-h", *_each(jobs), "--states=all", *which, "-o", SQUEUE_FORMAT])
    _refuse_silence(answer)
    return parse_squeue(answer.out)


def _refuse_silence(answer: Answer) -> None:
    """Raise SchedulerUnreachable where squeue failed: it has not said that it knows no such job."""
    if answer.code != 0 and "Invalid job id" not in answer.err:
        raise unreachable(sentence(answer.err) or f"squeue ended with {answer.code}")


def _each(jobs: Mapping[str, str]) -> tuple[str, ...]:
    """A row for each element of an array that waits; else they share one, `1234_[5-7]`. Only where
    elements are asked for: others' arrays are many rows."""
    return ("-r",) if any("_" in job_id for job_id in jobs) else ()


def _named(text: str, jobs: Mapping[str, str]) -> str:
    """The rows of these jobs, without the name at their end."""
    rows = (line.rpartition("|") for line in text.splitlines())
    return "\n".join(row for row, _, name in rows if jobs.get(row.partition("|")[0]) == name)


def _from_sacct(jobs: Mapping[str, str]) -> dict[str, JobInfo]:
    known: dict[str, JobInfo] = {}
    for rows in sacct(jobs, SACCT_FORMAT):
        known |= parse_sacct(rows)
    return known
