"""Strategies and what does not go with them."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.spec.checks.finding import Context, Finding
from orchestrator.spec.checks.world import model_parallel, world_size
from orchestrator.spec.job import JobSpec


def whole_groups(spec: JobSpec, _: Context) -> Iterator[Finding]:
    yield from split_in_groups(spec, world_size(spec))


def split_in_groups(spec: JobSpec, world: int | None) -> Iterator[Finding]:
    group = model_parallel(spec)
    if world is None or world % group == 0:
        return
    strategy = spec.strategy
    key = "tensor_parallel" if strategy.tensor_parallel > 1 else "pipeline_parallel"
    yield Finding(
        ("strategy", key),
        f"{world} ranks cannot be split into groups of {group} (tensor_parallel "
        f"{strategy.tensor_parallel} x pipeline_parallel {strategy.pipeline_parallel})",
        f"choose nodes and GPUs so that their product is a multiple of {group}",
    )


def sequence_without_tensor(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.strategy.sequence_parallel and spec.strategy.tensor_parallel == 1:
        yield Finding(
            ("strategy", "sequence_parallel"),
            "sequence_parallel shards between tensor-parallel ranks, and tensor_parallel is 1",
            "set tensor_parallel to 2 or more, or remove sequence_parallel",
        )


def offload_everything(spec: JobSpec, _: Context) -> Iterator[Finding]:
    strategy = spec.strategy
    if strategy.name == "zero" and strategy.offload == "all" and strategy.stage != 3:
        yield Finding(
            ("strategy", "offload"),
            f"`offload: all` moves parameters too, which ZeRO shards from stage 3 on; "
            f"stage is {strategy.stage}",
            "write `stage: 3`, or `offload: optimizer`",
        )


def pipeline_with_zero(spec: JobSpec, _: Context) -> Iterator[Finding]:
    strategy = spec.strategy
    if strategy.name == "zero" and strategy.stage > 1 and strategy.pipeline_parallel > 1:
        yield Finding(
            ("strategy", "pipeline_parallel"),
            f"DeepSpeed's pipelines go with ZeRO stage 1 alone; stage is {strategy.stage}",
            "write `stage: 1`, or `pipeline_parallel: 1`",
        )


def local_sgd(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.training.local_sgd is not None and spec.strategy.name != "ddp":
        yield Finding(
            ("training", "local_sgd"),
            f"local SGD averages whole models, and {spec.strategy.name} shards them",
            "write `strategy: ddp`, or remove local_sgd",
            at_key=True,
        )


def lora_or_trainable(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.training.lora is not None and spec.training.trainable is not None:
        yield Finding(
            ("training", "trainable"),
            "lora freezes every parameter but its adapters, and trainable names others to train",
            "keep one of lora and trainable",
            at_key=True,
        )
