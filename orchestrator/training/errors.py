"""What stops training with a sentence instead of a traceback."""

from __future__ import annotations

from orchestrator.errors import UserError


class TrainingFailed(UserError):
    """Training began and cannot go on."""

    exit_code = 1
    code = "training-failed"


class PlanMismatch(UserError):
    """The ranks that started, or this machine, are not what the plan says."""

    code = "plan-mismatch"


class NotSupported(UserError):
    """The spec asks for something that this entrypoint cannot do."""

    code = "not-supported"
