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


def zero_with_parts(spec: JobSpec, _: Context) -> Iterator[Finding]:
    strategy = spec.strategy
    for key in ("tensor_parallel", "pipeline_parallel"):
        degree = getattr(strategy, key)
        if strategy.name == "zero" and degree > 1:
            yield Finding(
                ("strategy", key),
                f"zero cuts over all ranks, and {key} {degree} groups them otherwise",
                f"write `name: fsdp`, which goes with {key}, or `{key}: 1`",
            )


def offload_with_pipeline(spec: JobSpec, _: Context) -> Iterator[Finding]:
    strategy = spec.strategy
    if strategy.name == "fsdp" and strategy.offload and strategy.pipeline_parallel > 1:
        yield Finding(
            ("strategy", "offload"),
            "a pipeline's stages keep their parameters on the GPU through a whole step, so there "
            "is nothing to offload",
            "remove offload, or write `pipeline_parallel: 1`",
        )


def zero_offload_in_bf16(spec: JobSpec, _: Context) -> Iterator[Finding]:
    strategy = spec.strategy
    if strategy.name == "zero" and strategy.offload != "none" and spec.training.precision == "bf16":
        yield Finding(
            ("strategy", "offload"),
            "DeepSpeed keeps the optimizer state of pure bf16 in host memory only with an Adam of "
            "its own, which trains otherwise",
            "write `precision: bf16-mixed`, or `offload: none`",
        )


def micro_batches_for_every_stage(spec: JobSpec, _: Context) -> Iterator[Finding]:
    stages, accumulation = spec.strategy.pipeline_parallel, spec.training.accumulation
    if accumulation < stages:
        yield Finding(
            ("training", "accumulation"),
            f"{accumulation} micro batches in a step of {stages} pipeline stages leave each stage "
            f"idle for {_idle(stages, accumulation):.0%} of the time",
            f"write an accumulation of {4 * stages} or more, with a smaller micro_batch",
            warning=True,
        )


def _idle(stages: int, micro_batches: int) -> float:
    """Share of a step that a stage waits (Narayanan et al. 2021, section 2.2.1)."""
    return (stages - 1) / (micro_batches + stages - 1)


def local_sgd(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.training.local_sgd is None:
        return
    strategy = spec.strategy
    if strategy.name != "ddp":
        yield Finding(
            ("training", "local_sgd"),
            f"local SGD averages whole models, and {strategy.name} shards them",
            "write `strategy: ddp`, or remove local_sgd",
            at_key=True,
        )
    elif model_parallel(spec) > 1:
        yield Finding(
            ("training", "local_sgd"),
            f"local SGD averages whole models, and here {model_parallel(spec)} ranks share one "
            f"(tensor_parallel {strategy.tensor_parallel} x pipeline_parallel "
            f"{strategy.pipeline_parallel})",
            "remove local_sgd, or set both degrees to 1",
            at_key=True,
        )


def lora_with_tensor(spec: JobSpec, _: Context) -> Iterator[Finding]:
    degree = spec.strategy.tensor_parallel
    if spec.training.lora is not None and degree > 1:
        yield Finding(
            ("training", "lora"),
            f"tensor parallelism cuts plain layers and not adapters; tensor_parallel is {degree}",
            "write `tensor_parallel: 1`: fsdp alone shards the frozen base as well",
            at_key=True,
        )


def compiled_and_recomputed(spec: JobSpec, _: Context) -> Iterator[Finding]:
    training = spec.training
    mode = training.activation_checkpointing.mode
    cut = spec.strategy.tensor_parallel > 1
    if training.compile and cut and mode in ("full", "every-n"):
        yield Finding(
            ("training", "activation_checkpointing", "mode"),
            f"PyTorch compiles no tensor-parallel layer that is recomputed whole, as with {mode}",
            "write `mode: selective`, or `compile: false`",
        )


def quantized_and_cut(spec: JobSpec, _: Context) -> Iterator[Finding]:
    lora = spec.training.lora
    if lora is None or lora.quantize == "none":
        return
    path = ("training", "lora", "quantize")
    if spec.strategy.name != "ddp" or model_parallel(spec) > 1:
        cut = spec.strategy.name if model_parallel(spec) == 1 else "model parallelism"
        yield Finding(
            path,
            f"a quantized base stays whole on every GPU, and {cut} would cut it",
            "write `strategy: ddp`, or `quantize: none`",
        )
    elif spec.resources.gpus_per_node == 0:
        yield Finding(
            path,
            "bitsandbytes quantizes on GPUs, and gpus_per_node is 0",
            "give the job a GPU, or write `quantize: none`",
        )


def eight_bit_optimizer(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.training.optimizer.name != "adamw-8bit":
        return
    path = ("training", "optimizer", "name")
    if spec.resources.gpus_per_node == 0:
        yield Finding(
            path, "adamw-8bit works on GPUs alone, and gpus_per_node is 0", "write `adamw`"
        )
    elif spec.strategy.name != "ddp" or spec.strategy.tensor_parallel > 1:
        cut = spec.strategy.name if spec.strategy.name != "ddp" else "tensor_parallel"
        yield Finding(
            path,
            f"adamw-8bit works on whole parameters, and {cut} cuts them or their state",
            "write `adamw`, or `strategy: ddp`",
        )


def exponential_to_nothing(spec: JobSpec, _: Context) -> Iterator[Finding]:
    schedule = spec.training.schedule
    if schedule.name == "exponential" and schedule.final_ratio == 0:
        yield Finding(
            ("training", "schedule", "final_ratio"),
            "an exponential schedule never reaches a final_ratio of 0, the default",
            "write the share of the learning rate that is left at the end, as 0.1",
        )


def lora_or_trainable(spec: JobSpec, _: Context) -> Iterator[Finding]:
    if spec.training.lora is not None and spec.training.trainable is not None:
        yield Finding(
            ("training", "trainable"),
            "lora freezes every parameter but its adapters, and trainable names others to train",
            "keep one of lora and trainable",
            at_key=True,
        )
