"""Models of transformers: from a folder, from the hub, or from a configuration alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.errors import UserError

_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")


def load_config(name: str) -> Any:
    """transformers' configuration of the model in folder `name`, or of that name on the hub.

    Offline mode (HF_HUB_OFFLINE) and the cache (HF_HOME) are honoured. Raises UserError where
    there is no such model, or it is gated.
    """
    from transformers import AutoConfig

    check_folder(name)
    with hub_errors(f"the model {name}"), quiet():
        return AutoConfig.from_pretrained(name)


def has_weights(name: str) -> bool:
    """False for a folder with a configuration and no weights, which is trained from scratch."""
    folder = Path(name)
    return not folder.is_dir() or any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def random_model(config: Any, *, dtype: torch.dtype, attention: str) -> nn.Module:
    """A causal language model with new weights (none, on the meta device).

    `attention` is transformers' name of an implementation.
    """
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    with _config_errors(config), quiet():
        model: nn.Module = auto.from_config(config, dtype=dtype, attn_implementation=attention)
    return model


def pretrained_model(
    name: str,
    config: Any,
    *,
    dtype: torch.dtype,
    attention: str,
    quantization: Any | None = None,
    device: torch.device | None = None,
) -> nn.Module:
    """A causal language model with the weights of folder or hub name `name`, on the CPU.

    With `quantization` (see `adapters.quantization`) its layers lie on `device`, quantized.
    Raises UserError where weights are missing, unreadable or of another shape than `config`
    says: transformers would make up new ones for them.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    options: dict[str, Any] = {}
    if quantization is not None:
        options = {"quantization_config": quantization, "device_map": {"": device}}
    with hub_errors(f"the weights of {name}"), _config_errors(config), quiet():
        try:
            model, report = auto.from_pretrained(
                name,
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to name them all, in our own words
                **options,
            )
        except RuntimeError as error:  # under ZeRO 3 it does not list what does not fit
            if "size mismatch" not in str(error):
                raise
            raise UserError(
                f"the weights of {name} do not fit its config.json: {_mismatch(error)}",
                hint=_OTHER_CONFIG,
            ) from error
        except SafetensorError as error:
            raise UserError(
                f"cannot read the weights of {name}: {error}",
                hint="the file is torn or no safetensors: copy or download it again",
            ) from error
    _check_complete(name, report)
    loaded: nn.Module = model
    return loaded


def _check_complete(name: str, report: Mapping[str, Any]) -> None:
    if wrong := sorted(report["mismatched_keys"]):
        tensor, there, here = wrong[0]
        raise UserError(
            f"the weights of {name} do not fit its config.json: {tensor} is {tuple(there)} in the "
            f"file and {tuple(here)} by the configuration{_others(wrong)}",
            hint=_OTHER_CONFIG,
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"the weights of {name} lack {missing[0]}{_others(missing)}",
            hint="they belong to another architecture, or the folder is not complete",
        )


_OTHER_CONFIG = "give the configuration that belongs to these weights"


def _mismatch(error: RuntimeError) -> str:
    """The first of PyTorch's own lines, "size mismatch for NAME: copying ..."."""
    return next(line.strip() for line in str(error).splitlines() if "size mismatch" in line)


def _others(names: list[Any]) -> str:
    return f", and {len(names) - 1} more tensors likewise" if len(names) > 1 else ""


def check_folder(name: str) -> None:
    """Raise UserError for a path without a model: it must not be looked up on the hub."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(
                f"the folder {name} holds no model: it has no config.json",
                hint="give the folder that save_pretrained has written",
            )
    elif folder.is_file() or name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise UserError(f"there is no model folder {name}", hint="ranks must see it on every node")


@contextmanager
def _config_errors(config: Any) -> Iterator[None]:
    """What transformers says of configurations that are no causal language model's."""
    try:
        yield
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(
            f"transformers cannot make a causal language model of type {config.model_type}: "
            f"{first_line(error)}"
        ) from error


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn what transformers and the hub raise while they look for `what` into a sentence."""
    from huggingface_hub import errors

    try:
        yield
    except (OSError, ValueError) as error:
        causes = list(_causes(error))
        if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
            raise UserError(
                f"{what} is gated: its owner has not let this account in",
                hint="accept its terms on the hub, and pass HF_TOKEN on with `secrets: [HF_TOKEN]`",
            ) from error
        if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
            raise UserError(
                f"the hub has nothing under the name of {what}, or not for this account",
                hint="look at the spelling; private ones want HF_TOKEN",
            ) from error
        if any(isinstance(cause, _offline_errors()) for cause in causes):
            raise UserError(
                f"{what} is not in the cache of this machine, and the hub cannot be reached",
                hint="download it where there is internet with `hf download`, on a file system "
                "that the nodes see, and set HF_HOME to that cache or give the folder",
            ) from error
        raise UserError(f"cannot load {what}: {first_line(error)}") from error


def _offline_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub import errors

    return (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and tables, which every rank would print."""
    from transformers import utils

    logging: Any = utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
