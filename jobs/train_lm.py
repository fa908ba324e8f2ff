"""Train a small byte-level language model on text: ptx's main entrypoint. Copy and change it.

`ptx submit jobs/quickstart.yaml` runs it. Without ptx, with default settings, so do
`python jobs/train_lm.py --steps=50` and torchrun.
"""

import os
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.training.args import parse_args
from orchestrator.training.engines import build_engine
from orchestrator.training.entrypoint import STOPPED, run
from orchestrator.training.errors import NotSupported
from orchestrator.training.evaluation import evaluate
from orchestrator.training.language.byte_model import ByteTransformer, NextByte
from orchestrator.training.language.corpus import load_corpus
from orchestrator.training.language.generation import sampled_text
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.metrics import MetricsWriter, say, warn
from orchestrator.training.plan import load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import check_precision, process_group, rank_from
from orchestrator.training.stop import StopVote
from orchestrator.training.support import refuse_unsupported, settings_without_effect


class Args(BaseModel):
    """What a spec's entrypoint.args may say. `ptx validate` runs this class alone, without the
    script around it: inside, use only Python's builtins, typing and pydantic.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field("bytes", description="bytes (built in), or a model's folder or hub name")
    data: str | None = Field(None, description="text file or folder; default: Python's own source")
    steps: int = Field(600, ge=1, description="optimizer steps")
    context: int = Field(128, ge=1, description="length of a sample in tokens")
    dim: int = Field(128, ge=2, description="width of the built-in model")
    layers: int = Field(4, ge=1, description="depth of the built-in model")
    heads: int = Field(4, ge=1, description="attention heads of the built-in model")
    eval_steps: int = Field(20, ge=1, description="micro batches a rank for the held-out loss")
    sample_bytes: int = Field(200, ge=0, description="length of the text written at the end")


def main(argv: Sequence[str]) -> int:
    args = parse_args(Args, argv, description="Train a byte-level language model.")
    plan = load_plan(os.environ, gpus=torch.cuda.device_count())
    refuse_unsupported(plan)
    if args.model != "bytes":
        raise NotSupported(
            f"this entrypoint cannot train {args.model} yet, only its built-in model",
            hint="set entrypoint.args.model to bytes",
        )
    rank = rank_from(os.environ, plan)
    check_precision(plan, rank.device)
    prepare_arithmetic(plan.training)
    with process_group(plan, rank):
        layout = layout_of(plan, rank.rank)
        corpus = load_corpus(args.data)
        train, heldout = (Windows(text, args.context) for text in (corpus.train, corpus.heldout))
        model = ByteTransformer(
            context=args.context, dim=args.dim, layers=args.layers, heads=args.heads
        )
        engine = build_engine(NextByte(model), plan, rank, layout)
        if rank.is_main:
            for name in settings_without_effect(plan):
                warn(f"{name} has no effect in this entrypoint yet")
            size = sum(parameter.numel() for parameter in model.parameters())
            say(f"data: {corpus.source}")
            say(f"model: {size:,} parameters, {engine.describe()} on {rank.device.type}")
        trainer = Trainer(engine, train, plan, rank, layout)
        with MetricsWriter.of(plan, rank) as writer, StopVote() as stop:
            outcome = trainer.fit(args.steps, writer, stop)
        if outcome.stopped:
            warn(
                f"rank {rank.rank}: stopped by SIGTERM after step {outcome.steps_done} of "
                f"{args.steps}; no checkpoint was written"
            )
            return STOPPED
        loss = evaluate(
            engine,
            heldout,
            layout,
            micro_batch=plan.training.micro_batch,
            batches=args.eval_steps,
        )
        if rank.is_main:
            text = sampled_text(model, "def ", args.sample_bytes, seed=plan.training.seed)
            say(f"sample:\n{text}")
            say(f"held-out loss {loss:.4f} nats/byte, {outcome.tokens_per_s:,.0f} tokens/s")
    return 0


if __name__ == "__main__":
    run(main)
