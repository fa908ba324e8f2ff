"""The names of runs that are the elements of one SLURM job array. Pure.

`sweep-7f3kq9` is an array; its elements are the runs `sweep.0-7f3kq9`, `sweep.1-7f3kq9`. SLURM
calls them by the array's name and `1234_0`, `1234_1`. A run that goes on in a new job is called by
its own name there, like any other.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from orchestrator.runs.ids import ALPHABET, SUFFIX_LENGTH

_ELEMENT = re.compile(rf"(.+)\.(\d{{1,7}})(-[{ALPHABET}]{{{SUFFIX_LENGTH}}})")


class Element(NamedTuple):
    array: str
    """The array's name, as its jobs bear it."""
    number: int


def element_id(array: str, index: int | str) -> str:
    """The run id of an element; also of `%a`, SLURM's word for the index."""
    name, suffix = array[: -SUFFIX_LENGTH - 1], array[-SUFFIX_LENGTH - 1 :]
    return f"{name}.{index}{suffix}"


def element_of(run_id: str) -> Element | None:
    """None for an id that is no element's. A spec's own name may end as theirs do: then no array
    of this name exists."""
    found = _ELEMENT.fullmatch(run_id)
    return Element(found[1] + found[3], int(found[2])) if found else None


def job_name(run_id: str, job_id: str) -> str:
    """Under which SLURM has this job of this run."""
    element = element_of(run_id) if "_" in job_id else None
    return element.array if element else run_id
