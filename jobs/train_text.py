"""Train a text classifier in the manner of DistilBERT. Copy and change it.

`ptx submit jobs/text_classifier.yaml` runs it. Without ptx, with default settings, so do
`python jobs/train_text.py --epochs=3` and torchrun.
"""

import os
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.training.agreement import together
from orchestrator.training.args import parse_args
from orchestrator.training.classification.encoding import load_encoder
from orchestrator.training.classification.source_code import load_source_code
from orchestrator.training.classification.text_data import load_text_files
from orchestrator.training.classification.text_model import build_text_model, encoder_name
from orchestrator.training.classification.texts import text_parts
from orchestrator.training.classification.training import (
    ClassifierTraining,
    refuse_for_classifiers,
)
from orchestrator.training.entrypoint import run
from orchestrator.training.layout import layout_of
from orchestrator.training.output import output_folder
from orchestrator.training.plan import load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import check_precision, process_group, rank_from


class Args(BaseModel):
    """What a spec's entrypoint.args may say. `ptx validate` runs this class alone, without the
    script around it: inside, use only Python's builtins, typing and pydantic.
    """

    model_config = ConfigDict(extra="forbid")

    data: str | None = Field(
        None,
        description="CSV (with a header) or JSON Lines file; default: source code on this "
        "machine, to be told apart by language",
    )
    validation: str | None = Field(None, description="the same to validate; default: cut from data")
    test: str | None = Field(None, description="the same to test; default: cut from data")
    text_column: str = Field("text", description="column or key of the text")
    label_column: str = Field("label", description="column or key of the label")
    epochs: int = Field(3, ge=1, description="passes over the training texts")

    model: str = Field("distilbert", description="distilbert, or a model's folder or hub name")
    tokenizer: str | None = Field(
        None, description="words, bytes, or a folder or hub name; default: the model's, or words"
    )
    length: int = Field(128, ge=2, description="tokens of a text; what is longer is cut off")
    output: str | None = Field(None, description="folder for the model; default: in the run's")

    vocabulary: int = Field(8192, ge=64, description="ids into which words are hashed")
    dim: int = Field(64, ge=1, description="width of a model made here")
    layers: int = Field(2, ge=1, description="depth of a model made here")
    heads: int = Field(4, ge=1, description="attention heads of a model made here")
    dropout: float = Field(0.1, ge=0, lt=1, description="of a model made here")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share spread over all classes")


def main(argv: Sequence[str]) -> int:
    args = parse_args(Args, argv, description="Train a text classifier.")
    plan = load_plan(os.environ, gpus=torch.cuda.device_count())
    refuse_for_classifiers(plan)
    rank = rank_from(os.environ, plan)
    check_precision(plan, rank.device)
    prepare_arithmetic(plan.training)
    seed = plan.training.seed
    with process_group(plan, rank):
        layout = layout_of(plan, rank.rank)
        with together(rank):
            folder = output_folder(args.output, plan)
            encoder = load_encoder(
                encoder_name(args, args.tokenizer), length=args.length, vocabulary=args.vocabulary
            )
            if args.data is None:
                found = load_source_code(seed=seed)
            else:
                found = load_text_files(
                    args.data,
                    args.validation,
                    args.test,
                    text_column=args.text_column,
                    label_column=args.label_column,
                    seed=seed,
                )
        classifier = build_text_model(args, found.classes, encoder, plan, rank)
        data = text_parts(found, encoder, seed=seed)
        return ClassifierTraining(classifier, data, plan, rank, layout).run(args.epochs, folder)


if __name__ == "__main__":
    run(main)
