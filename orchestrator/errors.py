"""The user's errors. Everything else that is raised is ours and ends in a traceback.

Exit codes are public: 0 ok, 1 the job failed, 2 bad usage or spec, 3 not found,
4 scheduler unreachable, 5 conflict, 124 wait timed out, 130 interrupted.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the person at the terminal can put right.

    `message` is one sentence saying what is wrong and where; `hint` is the way out.
    `code` names the error in JSON output and stays the same across versions.
    """

    exit_code = 2
    code = "usage"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class JobFailed(UserError):
    exit_code = 1
    code = "job-failed"


class NotFound(UserError):
    exit_code = 3
    code = "not-found"


class SchedulerUnreachable(UserError):
    exit_code = 4
    code = "scheduler-unreachable"


class Conflict(UserError):
    exit_code = 5
    code = "conflict"


class WaitTimedOut(UserError):
    exit_code = 124
    code = "wait-timed-out"
