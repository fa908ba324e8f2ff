"""The plan as a training entrypoint sees it: read from PTX_PLAN, or made up without ptx."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.plan.plan import PLAN_VERSION
from orchestrator.runs.layout import RunLayout
from orchestrator.spec.policies import Checkpoint, Logging
from orchestrator.spec.strategy import Ddp, Strategy
from orchestrator.spec.training import Evaluation, Training
from orchestrator.training.errors import PlanMismatch
from orchestrator.training.memory.known import fitted


@dataclass(frozen=True)
class TrainingPlan:
    """The part of plan.json that concerns a rank. Batch sizes are in samples."""

    world_size: int
    procs_per_node: int
    gpus_per_node: int
    """0 means that the ranks compute on CPU and talk through gloo."""
    global_batch: int
    """Samples of one optimizer step over all ranks."""
    strategy: Strategy
    training: Training
    logging: Logging
    checkpoint: Checkpoint
    metrics_path: Path | None
    """Where rank 0 writes metrics.jsonl; None outside a run of ptx."""
    group_shared: bool
    run_dir: Path | None = None
    """The run's folder; None outside a run of ptx."""
    attempt: int = 0
    """Number of this start of the run."""
    resume_from: Mapping[str, int] | None = None
    """Where a person went back in the run's history; see `checkpoints.names.eligible`."""

    @property
    def history(self) -> Mapping[str, int] | None:
        """The same; with `checkpoint.resume: never` earlier attempts are all another history."""
        if self.checkpoint.resume == "never":
            return {"step": 0, "attempt": self.attempt}
        return self.resume_from


def load_plan(environ: Mapping[str, str], *, gpus: int) -> TrainingPlan:
    """Read the plan that PTX_PLAN names; without it, take world size and defaults from `environ`.

    `gpus` is the number of GPUs this process sees; only the plan made up without ptx uses it.
    Raises PlanMismatch where the file is missing, is no plan, or has another version.
    """
    path = environ.get("PTX_PLAN")
    if path is None:
        return _plan_without_ptx(environ, gpus)
    fields = _read(Path(path))
    try:
        return TrainingPlan(
            world_size=fields["world_size"],
            procs_per_node=fields["procs_per_node"],
            gpus_per_node=fields["gpus_per_node"],
            global_batch=fields["global_batch"],
            strategy=TypeAdapter[Strategy](Strategy).validate_python(fields["strategy"]),
            training=fitted(Training.model_validate(fields["training"]), environ),
            logging=Logging.model_validate(fields["logging"]),
            checkpoint=Checkpoint.model_validate(fields["checkpoint"]),
            metrics_path=_metrics_path(environ, fields),
            group_shared=fields["group_shared"],
            run_dir=_run_dir(environ, fields),
            attempt=_attempt(environ),
            resume_from=fields.get("resume_from"),
        )
    except KeyError as error:
        raise PlanMismatch(f"the plan {path} has no field {error}", hint=_RESUBMIT) from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise PlanMismatch(
            f"the plan {path} does not fit this version of ptx: {where}: {problem['msg']}",
            hint=_RESUBMIT,
        ) from error


_RESUBMIT = "submit the spec again with the ptx that is installed here"


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanMismatch(
            f"PTX_PLAN names {path}, which cannot be read as a plan: {error}",
            hint="unset PTX_PLAN to run without ptx",
        ) from error
    version = fields.get("version") if isinstance(fields, dict) else None
    if version != PLAN_VERSION:
        raise PlanMismatch(
            f"the plan {path} has version {version!r}, and this ptx reads version {PLAN_VERSION}",
            hint=_RESUBMIT,
        )
    return dict(fields)


def _metrics_path(environ: Mapping[str, str], fields: Mapping[str, Any]) -> Path:
    return RunLayout(_run_dir(environ, fields)).metrics(_attempt(environ))


def _run_dir(environ: Mapping[str, str], fields: Mapping[str, Any]) -> Path:
    return Path(environ.get("PTX_RUN_DIR", fields["run_dir"]))


def _attempt(environ: Mapping[str, str]) -> int:
    return int(environ.get("PTX_ATTEMPT", "0"))


def _plan_without_ptx(environ: Mapping[str, str], gpus: int) -> TrainingPlan:
    world_size = int(environ.get("WORLD_SIZE", "1"))
    procs_per_node = int(environ.get("LOCAL_WORLD_SIZE", world_size))
    # All that is held out of the default data takes a minute, too long for trying it out.
    training = fitted(Training(evaluation=Evaluation(batches=20)), environ)
    return TrainingPlan(
        world_size=world_size,
        procs_per_node=procs_per_node,
        gpus_per_node=procs_per_node if gpus >= procs_per_node else 0,
        global_batch=training.micro_batch * training.accumulation * world_size,
        strategy=Ddp(),
        training=training,
        logging=Logging(),
        checkpoint=Checkpoint(),
        metrics_path=None,
        group_shared=False,
    )
