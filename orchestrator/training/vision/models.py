"""The image classifier that an entrypoint's arguments describe, ready for an engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import UserError
from orchestrator.training.classification.objective import Classify
from orchestrator.training.classification.training import Classifier
from orchestrator.training.classification.transformers_model import (
    new_classifier,
    pretrained_classifier,
)
from orchestrator.training.engines.loading import loading
from orchestrator.training.language.forms import FullForm
from orchestrator.training.language.pretrained import hub_errors, load_config
from orchestrator.training.plan import TrainingPlan
from orchestrator.training.process_group import Rank
from orchestrator.training.vision.batch_norm import batch_norm_for
from orchestrator.training.vision.dataset import InputFormat
from orchestrator.training.vision.vgg import Vgg, VggShape
from orchestrator.training.vision.vgg_form import VggForm

VIT, VGG = "vit", "vgg16"
_MIDDLE = 0.5  # ViT's own normalisation: values from -1 to 1


class ImageModelSettings(Protocol):
    """The part of an entrypoint's arguments that says which model; see the fields' own texts."""

    @property
    def model(self) -> str: ...
    @property
    def image_size(self) -> int | None: ...
    @property
    def patch(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def hidden(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def batch_norm(self) -> bool: ...
    @property
    def label_smoothing(self) -> float: ...


def image_size_of(settings: ImageModelSettings) -> int | None:
    """Height and width that the arguments or the pretrained weights ask for, in pixels."""
    if settings.model in (VIT, VGG):
        return settings.image_size
    return _format_of_weights(settings.model, settings.image_size).image_size


def input_format(settings: ImageModelSettings, *, size: int, channels: int) -> InputFormat:
    """What the model wants to see, of pictures that come in `size` and `channels`.

    Pretrained weights bring their own size, channels and normalisation. Raises UserError for a
    size that is no number of patches, or is not the one of the weights.
    """
    wanted = settings.image_size or size
    if settings.model not in (VIT, VGG):
        return _format_of_weights(settings.model, settings.image_size)
    if settings.model == VIT and wanted % settings.patch:
        raise UserError(
            f"images of {wanted} x {wanted} pixels are no whole number of patches of "
            f"{settings.patch}",
            hint="choose entrypoint.args.patch or image_size so that they divide",
        )
    return InputFormat(wanted, channels, (_MIDDLE,) * channels, (_MIDDLE,) * channels)


def build_image_model(
    settings: ImageModelSettings,
    classes: Sequence[str],
    wanted: InputFormat,
    plan: TrainingPlan,
    rank: Rank,
) -> Classifier:
    """The model and its loss; all ranks call it together. Raises UserError as its parts do."""
    smoothing = settings.label_smoothing
    if settings.model == VGG:
        shape = VggShape(
            wanted.channels,
            len(classes),
            wanted.image_size,
            width=settings.width,
            hidden=settings.hidden,
            dropout=settings.dropout,
            batch_norm=settings.batch_norm,
        )
        with loading(plan, rank):
            vgg = Vgg(shape, batch_norm_for(rank))
        form = VggForm(vgg, shape, classes)
        return Classifier(
            Classify(vgg, label_smoothing=smoothing), form, "made here", _saver(wanted)
        )
    if settings.model == VIT:
        config = vit_config(settings, wanted)
        model, origin = new_classifier("ImageClassification", config, classes, plan, rank)
    else:
        model, origin = pretrained_classifier(
            "ImageClassification", settings.model, classes, plan, rank
        )
    objective = Classify(model, label_smoothing=smoothing)
    return Classifier(objective, FullForm(model), origin, _saver(wanted))


def vit_config(settings: ImageModelSettings, wanted: InputFormat) -> Any:
    """A Vision Transformer's configuration (Dosovitskiy et al. 2020). Raises UserError for dims
    that do not divide."""
    from transformers import ViTConfig

    if settings.dim % settings.heads:
        raise UserError(
            f"--dim {settings.dim} does not divide into {settings.heads} heads",
            hint="make --dim a multiple of --heads",
        )
    return ViTConfig(
        image_size=wanted.image_size,
        num_channels=wanted.channels,
        patch_size=settings.patch,
        hidden_size=settings.dim,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=4 * settings.dim,
        hidden_dropout_prob=settings.dropout,
        # The paper's 0.02 is for a width of 768; in a narrow model it would let the signal die.
        initializer_range=settings.dim**-0.5,
    )


def _format_of_weights(name: str, size: int | None) -> InputFormat:
    config = load_config(name)
    own = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    if size not in (None, own):
        raise UserError(
            f"{name} was trained on images of {own} x {own} pixels, and image_size is {size}",
            hint="take entrypoint.args.image_size out",
        )
    facts = _preprocessor(name)
    channels = int(config.num_channels)
    mean, std = (facts.get(key) or [_MIDDLE] * channels for key in ("image_mean", "image_std"))
    return InputFormat(int(own), channels, tuple(mean), tuple(std))


def _preprocessor(name: str) -> dict[str, Any]:
    """preprocessor_config.json; {} where there is none."""
    from transformers.utils.hub import cached_file

    file = "preprocessor_config.json"
    with hub_errors(f"the image settings of {name}"):
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False)
        return dict(json.loads(Path(path).read_text(encoding="utf-8"))) if path else {}


def _saver(wanted: InputFormat) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        """As transformers' image processors read it."""
        side = wanted.image_size
        facts = {
            "image_processor_type": "ViTImageProcessor",
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": wanted.mean,
            "image_std": wanted.std,
            "do_resize": True,
            "size": {"height": side, "width": side},
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(facts, indent=2) + "\n")

    return save
