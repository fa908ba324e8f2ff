"""SLURM's own words for the state of a job, and the text forms of squeue and sacct."""

from __future__ import annotations

from orchestrator.schedulers.base import JobInfo, JobState

SQUEUE_FORMAT = "%i|%T|%r"
SACCT_FORMAT = "JobID,State,ExitCode"

_STATES = {
    JobState.PENDING: (
        "PENDING CONFIGURING REQUEUED REQUEUE_HOLD REQUEUE_FED RESV_DEL_HOLD SPECIAL_EXIT "
        "POWER_UP_NODE EXPEDITING"
    ),
    JobState.RUNNING: "RUNNING COMPLETING SUSPENDED STOPPED SIGNALING STAGE_OUT RESIZING UPDATE_DB",
    JobState.COMPLETED: "COMPLETED",
    JobState.FAILED: "FAILED LAUNCH_FAILED RECONFIG_FAIL",
    JobState.OUT_OF_MEMORY: "OUT_OF_MEMORY",
    JobState.PREEMPTED: "PREEMPTED",
    JobState.TIME_LIMIT: "TIMEOUT DEADLINE",
    JobState.NODE_FAILURE: "NODE_FAIL BOOT_FAIL",
    JobState.CANCELLED: "CANCELLED",
}
_BY_WORD = {word: state for state, words in _STATES.items() for word in words.split()}


def job_state(raw: str) -> JobState:
    """From `CANCELLED by 1000`, `RUNNING`; a word of no known meaning is UNKNOWN."""
    word = raw.split(maxsplit=1)[0].rstrip("+") if raw.strip() else ""
    return _BY_WORD.get(word.upper(), JobState.UNKNOWN)


def parse_squeue(text: str) -> dict[str, JobInfo]:
    """Rows of SQUEUE_FORMAT by job id."""
    infos = {}
    for job_id, raw, reason in _rows(text):
        state = job_state(raw)
        detail = "" if reason in ("", "None") else reason
        if state is JobState.PENDING:
            words = detail or raw
        else:
            words = f"{raw} ({detail})" if detail else raw
        infos[job_id] = JobInfo(job_id, state, words)
    return infos


def parse_sacct(text: str) -> dict[str, JobInfo]:
    """Rows of SACCT_FORMAT by job id. A requeued job has a row a start, the newest last."""
    infos = {}
    for job_id, raw, exit_code in _rows(text):
        words = raw if exit_code in ("", "0:0") else f"{raw} (exit {exit_code})"
        infos[job_id] = JobInfo(job_id, job_state(raw), words)
    return infos


def _rows(text: str) -> list[tuple[str, str, str]]:
    """Lines that are not three fields are a site's banner or a warning, not a job."""
    fields = (line.strip().split("|", 2) for line in text.splitlines())
    return [(row[0], row[1], row[2]) for row in fields if len(row) == 3 and row[0]]
