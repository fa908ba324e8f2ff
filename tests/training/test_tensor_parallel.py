"""Real ranks over gloo: layers cut over ranks train as whole ones do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support.oracle import Series
from support.same_training import assert_same, case, trained
from support.tiny_llama import tiny_llama
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from orchestrator.spec.training import Training
from orchestrator.training.engines.decoder import decoder_of
from orchestrator.training.engines.prepare import prepare_layers
from orchestrator.training.engines.tensor import check_divisible, parallelize, refuse_uneven_time
from orchestrator.training.errors import NotSupported
from orchestrator.training.language.byte_model import ByteTransformer
from orchestrator.training.language.next_token import NextToken

pytestmark = pytest.mark.slow

LLAMA, TIED = {"kind": "llama", "layers": 2}, {"kind": "llama", "layers": 2, "tied": True}
QWEN2, QWEN3 = {"kind": "qwen2"}, {"kind": "qwen3"}
DDP = {"name": "ddp"}
TENSOR = {"name": "ddp", "tensor_parallel": 2}
SEQUENCE = TENSOR | {"sequence_parallel": True}
CHUNKED = {"packed": True, "logits_at_once": 256 * 8 * 3}
RECOMPUTED = {"training": {"activation_checkpointing": {"mode": "full"}}}
SGD = {"training": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}}

ONE = {
    "whole": case((8, 1), DDP, LLAMA),
    "whole, tied": case((8, 1), DDP, TIED),
    "whole, packed": case((8, 1), DDP, LLAMA, packed=True),
    "whole, sgd": case((8, 1), DDP, LLAMA, **SGD),
    "whole, qwen2": case((8, 1), DDP, QWEN2),
    "whole, qwen3": case((8, 1), DDP, QWEN3),
}
TWO = {
    "tensor": ("whole", case((8, 1), TENSOR, LLAMA)),
    "tensor, tied": ("whole, tied", case((4, 2), TENSOR, TIED)),
    "sequence": ("whole", case((8, 1), SEQUENCE, LLAMA)),
    "sequence, tied": ("whole, tied", case((8, 1), SEQUENCE, TIED)),
    "packed, chunked, recomputed": (
        "whole, packed",
        case((8, 1), SEQUENCE, LLAMA, **CHUNKED, **RECOMPUTED),
    ),
    "sgd": ("whole, sgd", case((8, 1), TENSOR, LLAMA, **SGD)),
    "biases": ("whole, qwen2", case((8, 1), TENSOR, QWEN2)),
    "norms over heads": ("whole, qwen3", case((8, 1), SEQUENCE, QWEN3)),
}
FOUR = {
    "tensor x fsdp": ("whole", case((2, 2), SEQUENCE | {"name": "fsdp"}, LLAMA)),
    "tensor x ddp": ("whole, tied", case((4, 1), TENSOR, TIED)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {size: tmp_path_factory.mktemp(f"ranks-{size}") for size in (1, 2, 4)}


@pytest.fixture(scope="module")
def series(folders: dict[int, Path]) -> Series:
    found = trained(folders[1], ONE, world_size=1)
    for size, cases in ((2, TWO), (4, FOUR)):
        found |= trained(
            folders[size], {name: made for name, (_, made) in cases.items()}, world_size=size
        )
    return found


@pytest.mark.parametrize("name", TWO)
def test_two_ranks_that_share_each_layer_train_as_one(
    name: str, folders: dict[int, Path], series: Series
) -> None:
    assert_same(name, folders[2], TWO[name][0], folders[1], series)


@pytest.mark.parametrize("name", FOUR)
def test_it_goes_with_data_parallelism(name: str, folders: dict[int, Path], series: Series) -> None:
    assert_same(name, folders[4], FOUR[name][0], folders[1], series)


def test_the_references_differ(series: Series) -> None:
    """Else the tests above would not tell one model from another."""
    assert len({tuple(series[name]["losses"]) for name in ONE}) == len(ONE)


@pytest.mark.parametrize(
    ("degree", "what"), [(4, "2 key-value heads"), (8, "4 attention heads"), (3, "attention heads")]
)
def test_a_degree_that_does_not_divide_is_refused(degree: int, what: str) -> None:
    decoder = decoder_of(tiny_llama(), purpose="tensor parallelism")
    check_divisible(decoder, 2)
    with pytest.raises(NotSupported, match=what):
        check_divisible(decoder, degree)


def test_a_vocabulary_that_does_not_divide_is_refused() -> None:
    model = tiny_llama()
    model.resize_token_embeddings(257)
    with pytest.raises(NotSupported, match="257 tokens of the vocabulary"):
        check_divisible(decoder_of(model, purpose="tensor parallelism"), 2)


def test_adapters_are_refused() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules="all-linear"))
    with pytest.raises(NotSupported, match=r"0\.self_attn\.q_proj is a peft\."):
        check_divisible(decoder_of(model, purpose="tensor parallelism"), 2)


@pytest.mark.parametrize(
    "model", [ByteTransformer(context=8, dim=8, layers=1, heads=1), nn.Linear(2, 2)]
)
def test_a_model_of_another_family_is_refused(model: nn.Module) -> None:
    with pytest.raises(NotSupported, match=f"Llama family .* {type(model).__name__} has others"):
        decoder_of(model, purpose="tensor parallelism")


def test_time_that_does_not_divide_is_refused_under_sequence_parallelism() -> None:
    model = tiny_llama()
    refuse_uneven_time(decoder_of(model, purpose="tensor parallelism"), 3)
    tokens = torch.zeros(1, 16, dtype=torch.int64)
    model(tokens[:, :15])
    with pytest.raises(NotSupported, match="samples of 16 tokens over 3 ranks"):
        model(tokens)


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """Of this process alone: layouts are there, and nothing travels."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("tensor",))
    dist.destroy_process_group()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_every_parameter_is_laid_out_and_frozen_and_tied_ones_stay_so(
    device: str, mesh: DeviceMesh
) -> None:
    model = tiny_llama(tied=True).to(device)
    model.tie_weights()
    model.model.norm.weight.requires_grad = False
    names = list(model.state_dict())
    parallelize(NextToken(model), mesh, sequence=True)
    assert list(model.state_dict()) == names
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["model.norm.weight"]
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())


def test_what_pytorch_cannot_compile_is_refused(mesh: DeviceMesh) -> None:
    objective = NextToken(tiny_llama())
    parallelize(objective, mesh, sequence=False)
    mode = {"mode": "full"}
    with pytest.raises(NotSupported, match=r"activation_checkpointing\.mode is full"):
        prepare_layers(objective, Training(compile=True, activation_checkpointing=mode))
