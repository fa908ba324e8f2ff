"""The batch."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.checks.world import model_parallel, world_size
from orchestrator.spec.job import JobSpec


def product(spec: JobSpec, _: Context) -> Iterator[Finding]:
    yield from batch_product(spec, world_size(spec))


def batch_product(spec: JobSpec, world: int | None) -> Iterator[Finding]:
    """micro_batch x accumulation x data-parallel size is the global batch that was asked for."""
    training = spec.training
    wanted = training.global_batch
    if wanted is None or world is None or world % model_parallel(spec):
        return
    ranks = world // model_parallel(spec)
    per_step = training.micro_batch * ranks
    actual = per_step * training.accumulation
    if actual == wanted:
        return
    help_ = f"write `global_batch: {actual}`, or leave it out"
    if wanted % per_step == 0:
        help_ = f"`accumulation: {wanted // per_step}` gives {wanted}"
    yield Finding(
        ("training", "global_batch"),
        f"global_batch is {wanted}, but micro_batch {training.micro_batch} x accumulation "
        f"{training.accumulation} x data-parallel size {ranks} is {actual}",
        help_,
    )
