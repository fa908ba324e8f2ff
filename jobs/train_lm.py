"""Train a causal language model on text: ptx's main entrypoint. Copy and change it.

`ptx submit jobs/quickstart.yaml` runs it. Without ptx, with default settings, so do
`python jobs/train_lm.py --steps=50` and torchrun.
"""

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.errors import UserError
from orchestrator.training.agreement import together
from orchestrator.training.args import parse_args
from orchestrator.training.checkpoint.checkpoints import Checkpoints
from orchestrator.training.checkpoint.description import describe_model
from orchestrator.training.engines import build_engine
from orchestrator.training.entrypoint import STOPPED, run
from orchestrator.training.evaluation import evaluate
from orchestrator.training.language.dataset import load_text
from orchestrator.training.language.export import export
from orchestrator.training.language.generation import sampled_text
from orchestrator.training.language.models import build_language_model, tokenizer_of
from orchestrator.training.language.saved_tokenizer import save_tokenizer
from orchestrator.training.language.text_options import TextOptions
from orchestrator.training.language.tokenizers import load_tokenizer
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter, say, warn
from orchestrator.training.output import output_folder
from orchestrator.training.plan import load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import check_precision, process_group, rank_from
from orchestrator.training.stop import StopVote

DEFAULT_STEPS = 600
LARGEST_SAMPLED = 100_000_000
"""Parameters. Text from a larger model would keep every GPU of the run waiting for one CPU."""


class Args(BaseModel):
    """What a spec's entrypoint.args may say. `ptx validate` runs this class alone, without the
    script around it: inside, use only Python's builtins, typing and pydantic.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field("bytes", description="bytes or llama (made here), a folder, or a hub name")
    tokenizer: str | None = Field(None, description="bytes, folder or hub name; the model's own")
    adapter: str | None = Field(None, description="folder of an adapter to train further")
    output: str | None = Field(None, description="folder for the trained model; the run's `model`")

    steps: int | None = Field(None, ge=1, description="optimizer steps; 600 without epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the data, instead of steps")
    context: int = Field(128, ge=1, description="length of a sample in tokens")

    data: str | list[str] | None = Field(
        None, description="files, folders, a dataset or its hub name; Python's own source"
    )
    format: Literal["text", "jsonl", "parquet", "dataset", "hub"] | None = Field(
        None, description="of the data; by the files' names"
    )
    packed: bool | None = Field(None, description="several documents to a sample, kept apart")
    heldout: str | list[str] | None = Field(None, description="data to hold out; a share of it")
    heldout_share: float = Field(0.05, gt=0, lt=1, description="of the data, where it has no own")
    text_column: str | None = Field(None, description="name of the column `text`")
    prompt_column: str | None = Field(None, description="name of the column `prompt`")
    completion_column: str | None = Field(None, description="name of the column `completion`")
    messages_column: str | None = Field(None, description="name of the column `messages`")
    split: str = Field("train", description="of a dataset with several")
    subset: str | None = Field(None, description="of a hub dataset with several")
    bad_utf8: Literal["stop", "replace"] = Field("stop", description="what bad bytes do")
    cache: str | None = Field(None, description="folder for tokens")

    dim: int = Field(128, ge=2, description="width of a model made here")
    layers: int = Field(4, ge=1, description="depth of a model made here")
    heads: int = Field(4, ge=1, description="attention heads of a model made here")
    kv_heads: int | None = Field(None, ge=1, description="key-value heads of a llama; as heads")
    hidden: int | None = Field(None, ge=1, description="feed-forward width of a llama; 8/3 dim")
    tied: bool = Field(False, description="one matrix for a llama's input and output")
    rope_theta: float = Field(10_000.0, gt=0, description="a llama's base of rotary positions")

    prompt: str = Field("def ", min_length=1, description="what the text at the end begins with")
    sample_bytes: int = Field(200, ge=0, description="tokens of the text at the end; 0: no text")


def text_options(args: Args) -> TextOptions:
    columns = {
        "text": args.text_column,
        "prompt": args.prompt_column,
        "completion": args.completion_column,
        "messages": args.messages_column,
    }
    one = isinstance(args.data, list) and len(args.data) == 1  # on a command line all are lists
    return TextOptions(
        data=args.data[0] if one else args.data,
        context=args.context,
        format=args.format,
        packed=args.packed,
        heldout=args.heldout,
        heldout_share=args.heldout_share,
        columns={standard: name for standard, name in columns.items() if name is not None},
        split=args.split,
        subset=args.subset,
        bad_utf8=args.bad_utf8,
        cache=args.cache,
    )


def main(argv: Sequence[str]) -> int:
    args = parse_args(Args, argv, description="Train a causal language model on text.")
    if args.steps is not None and args.epochs is not None:
        raise UserError("both steps and epochs say how long to train", hint="keep one of them")
    plan = load_plan(os.environ, gpus=torch.cuda.device_count())
    rank = rank_from(os.environ, plan)
    check_precision(plan, rank.device)
    prepare_arithmetic(plan.training)
    with process_group(plan, rank):
        layout = layout_of(plan, rank.rank)
        with together(rank):
            folder = output_folder(args.output, plan)
            tokenizer = load_tokenizer(tokenizer_of(args, args.tokenizer))
        data = load_text(text_options(args), tokenizer, rank, step_samples=plan.global_batch)
        language = build_language_model(args, plan, rank, tokenizer, packed=data.packed)
        describe_model(language.form, plan, rank, beside=partial(save_tokenizer, tokenizer))
        engine = build_engine(language.objective, plan, rank, layout)

        samples = None if args.epochs is None else math.ceil(args.epochs * len(data.train))
        if rank.is_main:
            say(f"data: {data.source}")
            say(f"model: {language}, {engine.describe()} on {rank.device.type}")
            tokens = plan.global_batch * (data.train.tokens_per_sample or 0)
            say(
                f"a step: {plan.global_batch:,} samples = micro batch {plan.training.micro_batch} "
                f"x accumulation {plan.training.accumulation} x {layout.data_size} data ranks, "
                f"{tokens:,} {engine.unit}s"
            )

        def heldout_loss() -> float:
            return evaluate(
                engine,
                data.heldout,
                layout,
                micro_batch=plan.training.micro_batch,
                batches=plan.training.evaluation.batches,
            )

        # Ranks that share a model drop the same activations, the others different ones.
        torch.manual_seed(plan.training.seed + layout.data_rank)
        trainer = Trainer(engine, data.train, plan, rank, layout)
        with (
            MetricsWriter.of(plan, rank) as writer,
            StopVote.of(rank) as stop,
            Checkpoints(engine, plan, rank, layout) as checkpoints,
        ):
            steps = args.steps or DEFAULT_STEPS
            outcome = trainer.fit(steps, writer, stop, heldout_loss, checkpoints, samples=samples)
        if outcome.stopped:
            warn(f"rank {rank.rank}: {outcome.story}")
            return STOPPED

        if outcome.ended == "early" and rank.is_main:
            say(f"stopped at step {outcome.steps_done}: the held-out loss got no better")

        sampled = args.sample_bytes > 0 and language.parameters <= LARGEST_SAMPLED
        if folder is not None or sampled:
            state = engine.state(language.form.names.__contains__)
        if rank.is_main:
            if folder is None:
                warn("the trained model is not kept: name a folder for it with --output")
            else:
                export(
                    language.form,
                    state,
                    folder,
                    tokenizer=tokenizer,
                    step=outcome.steps_done,
                    group_shared=plan.group_shared,
                )
                say(f"{language.form.what}: {folder}")
                say(f"next: python {Path(__file__).with_name('sample_lm.py')} --model={folder}")
            model = language.form.rebuilt(state) if sampled else None
            if model is not None:
                text = sampled_text(
                    model, tokenizer, args.prompt, args.sample_bytes, seed=plan.training.seed
                )
                say(f"sample:\n{text}")
            say(
                f"held-out loss {outcome.eval_loss:.4f} nats/{engine.unit}, "
                f"{outcome.tokens_per_s:,.0f} tokens/s"
            )
        outcome.check_saved()
    return 0


if __name__ == "__main__":
    run(main)
