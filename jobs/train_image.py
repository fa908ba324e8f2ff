"""Train an image classifier: a Vision Transformer or a VGG. Copy and change it.

`ptx submit jobs/vit_digits.yaml` runs it. Without ptx, with default settings, so do
`python jobs/train_image.py --epochs=5` and torchrun.
"""

import os
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.training.agreement import together
from orchestrator.training.args import parse_args
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
from orchestrator.training.vision.data import classifier_data, load_pictures
from orchestrator.training.vision.models import build_image_model, image_size_of, input_format


class Args(BaseModel):
    """What a spec's entrypoint.args may say. `ptx validate` runs this class alone, without the
    script around it: inside, use only Python's builtins, typing and pydantic.
    """

    model_config = ConfigDict(extra="forbid")

    data: str = Field(
        "digits",
        description="digits (scikit-learn's), a folder of CIFAR-10's files, or one with a folder "
        "of images a class, also below train, val and test",
    )
    epochs: int = Field(20, ge=1, description="passes over the training images")
    crop: int = Field(0, ge=0, description="training images move by up to so many pixels")
    flip: bool = Field(False, description="every other training image is mirrored")
    skip_unreadable: int = Field(0, ge=0, description="unreadable images a rank may leave out")

    model: str = Field("vit", description="vit, vgg16, or a model's folder or hub name")
    image_size: int | None = Field(None, ge=1, description="pixels; default: the data's or model's")
    output: str | None = Field(None, description="folder for the model; default: in the run's")

    patch: int = Field(2, ge=1, description="side of a vit's patches in pixels")
    dim: int = Field(64, ge=1, description="width of a vit")
    layers: int = Field(2, ge=1, description="depth of a vit")
    heads: int = Field(4, ge=1, description="attention heads of a vit")

    width: int = Field(64, ge=1, description="channels of a vgg16's first stage")
    hidden: int = Field(512, ge=1, description="width of a vgg16's hidden layers")
    batch_norm: bool = Field(True, description="in a vgg16, after each convolution")

    dropout: float = Field(0.0, ge=0, lt=1, description="of a model made here")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share spread over all classes")


def main(argv: Sequence[str]) -> int:
    args = parse_args(Args, argv, description="Train an image classifier.")
    plan = load_plan(os.environ, gpus=torch.cuda.device_count())
    refuse_for_classifiers(plan)
    rank = rank_from(os.environ, plan)
    check_precision(plan, rank.device)
    prepare_arithmetic(plan.training)
    with process_group(plan, rank):
        layout = layout_of(plan, rank.rank)
        with together(rank):
            folder = output_folder(args.output, plan)
            size = image_size_of(args)
        found = load_pictures(args, plan, rank, image_size=size)
        with together(rank):
            wanted = input_format(args, size=found.image_size, channels=found.pictures.channels)
        data = classifier_data(found, wanted, args, plan)
        classifier = build_image_model(args, data.classes, wanted, plan, rank)
        return ClassifierTraining(classifier, data, plan, rank, layout).run(args.epochs, folder)


if __name__ == "__main__":
    run(main)
