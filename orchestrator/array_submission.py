"""Many runs of one spec, as the elements of one SLURM job array.

Each is a run like any other: a folder, a plan and checkpoints of its own; it is requeued, cancelled
and resumed by itself. The array is one sbatch for all of them, and SLURM's limit on how many run at
once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import SchedulerUnreachable, UserError
from orchestrator.preparation import Choices, Prepared, load_spec, prepare
from orchestrator.runs.array import element_id
from orchestrator.runs.events import ClientEvents
from orchestrator.runs.ids import is_run_id, new_run_id
from orchestrator.schedulers.environment import withheld
from orchestrator.schedulers.slurm import ARRAY_SCRIPT, Slurm
from orchestrator.submission import make_run, secret_values

INDEX = "{index}"
"""In the value of a `--set`: the number of the element."""
_MOST = 1000
"""SLURM's own MaxArraySize is 1001 where a site does not raise it."""
_SIZE = re.compile(r"([1-9]\d{0,5})((?:%[1-9]\d{0,5})?)")


@dataclass(frozen=True)
class Array:
    name: str
    runs: tuple[Prepared, ...]
    """The elements, by index."""

    @property
    def first(self) -> Prepared:
        return self.runs[0]


def prepare_array(path: Path, choices: Choices, root: Path, size: str) -> Array:
    """`size` is `N` or `N%K`: N runs, K of them at a time. Raises UserError, SpecError."""
    count, at_once = _size(size)
    spec = load_spec(path, _for_element(choices, 0), root).spec
    if spec.scheduler != Slurm.name:
        raise UserError(
            f"--array makes a job array of SLURM's, and the scheduler is {spec.scheduler}.",
            hint="Add --scheduler slurm, or submit one run after the other.",
        )
    name = new_run_id(spec.name)
    longest = element_id(name, count - 1)
    if not is_run_id(longest):
        raise UserError(f"The name {spec.name} is too long for an array.", hint="Shorten --name.")
    runs = [
        prepare(path, _for_element(choices, index), root, element_id(name, index))
        for index in range(count)
    ]
    return Array(name, _with_script(runs, name, f"0-{count - 1}{at_once}"))


def _refuse_differences(runs: Sequence[Prepared], scripts: Sequence[bytes]) -> None:
    """SLURM gives every element of an array what the first one asks for."""
    for run, script in zip(runs, scripts, strict=True):
        if run.plan.name != runs[0].plan.name:
            raise UserError(
                f"The runs of an array have one name, and {run.plan.name} is another than "
                f"{runs[0].plan.name}.",
                hint=f"Leave {INDEX} out of the name.",
            )
        lines = zip(scripts[0].decode().splitlines(), script.decode().splitlines(), strict=False)
        for first, other in lines:
            if first != other:
                raise UserError(
                    f"All elements of an array ask SLURM for the same, and {run.layout.run_id} "
                    f"would ask for `{other}` where the first has `{first}`.",
                    hint=f"Leave {INDEX} out of what is asked of SLURM, or submit one by one.",
                )


def submit_array(array: Array, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Make the folder of each run, and one array of jobs for all; the job ids, by index.

    The intent stands in every folder before SLURM is called, as with a single run. Raises Conflict,
    UserError, SchedulerUnreachable.
    """
    secrets = secret_values(array.first.loaded.spec.secrets, environ)
    scheduler = Slurm()
    scheduler.check()
    made: list[ClientEvents] = []
    try:
        for run in array.runs:
            _, events = make_run(run, secrets, array=array.name)
            made.append(events)
        with withheld(secrets):
            number = scheduler.submit_array(array.first.layout, array.name)
    except SchedulerUnreachable:
        raise  # it may have them all the same: the next command looks for each
    except UserError as error:
        for events in made:
            events.append("submit_failed", message=error.message)
        raise
    job_ids = [f"{number}_{index}" for index in range(len(made))]
    for events, job_id in zip(made, job_ids, strict=True):
        events.append("submitted", job_id=job_id)
    return job_ids


def _size(text: str) -> tuple[int, str]:
    """How many, and SLURM's `%K` for how many at a time."""
    found = _SIZE.fullmatch(text)
    if found is None or int(found[1]) > _MOST:
        raise UserError(
            f"--array {text} is no size of an array.",
            hint=f"--array 8 makes 8 runs, --array 8%2 two of them at a time; {_MOST} at most.",
        )
    return int(found[1]), found[2]


def _for_element(choices: Choices, index: int) -> Choices:
    settings = tuple(one.replace(INDEX, str(index)) for one in choices.settings)
    return replace(choices, settings=settings)


def _with_script(runs: Sequence[Prepared], name: str, elements: str) -> tuple[Prepared, ...]:
    """The script of the array is in the bundle of its first run."""
    first, scheduler = runs[0], Slurm()
    argv = scheduler.submit_argv(first.layout, ARRAY_SCRIPT)
    scripts = [scheduler.render_array(run.loaded.spec, run.plan, name, elements) for run in runs]
    _refuse_differences(runs, [script.data for script in scripts])
    files = (*first.bundle.files, scripts[0])
    bundles = [replace(run.bundle, submit_argv=argv) for run in runs]
    bundles[0] = replace(bundles[0], files=files)
    both = zip(runs, bundles, strict=True)
    return tuple(replace(run, bundle=bundle) for run, bundle in both)
