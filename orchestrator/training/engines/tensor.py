"""Tensor and sequence parallelism: every layer's matrices are cut over neighbouring ranks.

Megatron's scheme (Shoeybi et al. 2019; sequence parallelism: Korthikanti et al. 2022) on
PyTorch's DTensor, for the Llama family of transformers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)
from torch.distributed.tensor.placement_types import Placement

from orchestrator.training.engines.decoder import Decoder, decoder_of
from orchestrator.training.engines.tensor_styles import (
    GatheredNorm,
    HeadNorm,
    Region,
    Replicated,
    VocabularyRows,
)
from orchestrator.training.errors import NotSupported
from orchestrator.training.objective import Objective

_TIME = 1  # the dimension of hidden states, (batch, time, dim), that sequence parallelism cuts


def parallelize(objective: Objective, tensor_mesh: DeviceMesh, *, sequence: bool) -> None:
    """Cut the objective's model over the ranks of a one-dimensional mesh, in place.

    Every parameter becomes a DTensor: embedding and output layer by vocabulary, query, key,
    value, gate and up projections by outputs (whole heads), output and down projections by
    inputs; norms are replicated. Parameters may be on the meta device; others become those of
    the mesh's first rank. Between these regions hidden states are whole on every rank or, with
    `sequence`, cut along time. Tied embeddings stay one parameter.

    Raises NotSupported where the model is of another family, has adapters or a quantised base,
    or does not divide by the mesh's size.
    """
    decoder = decoder_of(objective.model, purpose="tensor parallelism")
    check_divisible(decoder, tensor_mesh.size())
    divide(decoder, tensor_mesh, sequence=sequence)


def divide(decoder: Decoder, tensor_mesh: DeviceMesh, *, sequence: bool) -> None:
    """`parallelize` for what a pipeline has left of a model, after `check_divisible`."""
    stream = stream_of(sequence)
    if sequence:
        refuse_uneven_time(decoder, tensor_mesh.size())
    parts = [(layer, _layer_plan(layer, stream)) for layer in decoder.layers]
    if decoder.has_first:
        parts.append((decoder.trunk, {"embed_tokens": VocabularyRows(stream)}))
    if decoder.has_last:
        parts.append((decoder.trunk, {"norm": GatheredNorm()}))
        parts.append((decoder.owner, {"lm_head": ColwiseParallel(use_local_output=False)}))
    for module, plan in parts:
        meta = next(module.parameters()).is_meta
        parallelize_module(module, tensor_mesh, plan, src_data_rank=None if meta else 0)
    if decoder.tied and decoder.has_first and decoder.has_last:
        decoder.head.weight = decoder.embedding.weight


def stream_of(sequence: bool) -> Placement:
    """How hidden states lie between the layers' cut regions."""
    return Shard(_TIME) if sequence else Replicate()


def _layer_plan(layer: nn.Module, stream: Placement) -> dict[str, ParallelStyle]:
    """Between the layer's regions hidden states are DTensors laid out as `stream`, so that their
    shape is the whole sequence's; inside attention queries, keys and values are plain tensors of
    this rank's heads, which any attention kernel takes."""
    attention = layer.get_submodule("self_attn")
    plan: dict[str, ParallelStyle] = {
        "input_layernorm": Replicated(),
        "post_attention_layernorm": Replicated(),
        "self_attn": Region(),
        "mlp": Region(),
        **{f"self_attn.{name}_proj": ColwiseParallel() for name in ("q", "k", "v")},
        **{f"mlp.{name}_proj": ColwiseParallel() for name in ("gate", "up")},
        "self_attn.o_proj": RowwiseParallel(output_layouts=stream, use_local_output=False),
        "mlp.down_proj": RowwiseParallel(output_layouts=stream, use_local_output=False),
    }
    for name in ("q_norm", "k_norm"):
        if hasattr(attention, name):
            plan[f"self_attn.{name}"] = HeadNorm()
    return plan


def check_divisible(decoder: Decoder, degree: int) -> None:
    """Raise NotSupported where the model cannot be cut over `degree` ranks."""
    for name, module in decoder.layers.named_modules():
        if name.endswith("_proj") and type(module) is not nn.Linear:
            kind = type(module)
            raise NotSupported(
                f"tensor parallelism cuts plain linear layers, and layers.{name} is a "
                f"{kind.__module__}.{kind.__name__}",
                hint="train adapters and quantised models without tensor_parallel",
            )
    layer: Any = next(iter(decoder.layers))
    attention, mlp = layer.self_attn, layer.mlp
    head_dim = attention.head_dim
    for count, what in (
        (attention.q_proj.out_features // head_dim, "attention heads"),
        (attention.k_proj.out_features // head_dim, "key-value heads"),
        (mlp.gate_proj.out_features, "units of the feed-forward layer"),
        (decoder.embedding.num_embeddings, "tokens of the vocabulary"),
    ):
        if count % degree:
            raise NotSupported(
                f"strategy.tensor_parallel is {degree}, which does not divide the model's "
                f"{count:,} {what}",
                hint="choose a degree that divides heads, key-value heads, feed-forward units "
                "and vocabulary",
            )


def refuse_uneven_time(decoder: Decoder, degree: int) -> None:
    """DTensor would take the first rank's length for everybody's where time does not divide."""

    def check(_module: nn.Module, _inputs: object, named: dict[str, torch.Tensor]) -> None:
        time = named["input_ids"].shape[_TIME]
        if time % degree:
            raise NotSupported(
                f"strategy.sequence_parallel cuts samples of {time} tokens over {degree} ranks, "
                "which do not divide them",
                hint=f"make the length of samples a multiple of {degree}",
            )

    decoder.trunk.register_forward_pre_hook(check, with_kwargs=True)
