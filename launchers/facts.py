"""What a launcher is told, and what it answers. Ground floor: imports nothing of ptx."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

RUNTIME_NAMES = frozenset(
    {
        "PTX_PYTHON",  # the interpreter that runs launcher, shim and entrypoint
        "PTX_BUNDLE",  # absolute path of the bundle on this node
        "PTX_ATTEMPT",  # number of this attempt, from 0
        "PTX_NODE_RANK",  # 0 .. nodes-1
        "PTX_HEAD_ADDR",  # where node 0 can be reached
        "PTX_HEAD_PORT",  # the rendezvous port
        "PTX_IS_HEAD",  # "true" on node 0, else "false"
        "PTX_LOCAL_ADDR",  # where the other nodes can reach this one
    }
)

_REFERENCE = re.compile(r"\$\{(\w+)\}")
_LITERAL = re.compile(r"[A-Za-z0-9_.,:/=@%+-]*")


@dataclass(frozen=True)
class Runtime:
    """A word that only the node can complete, such as `${PTX_HEAD_ADDR}:${PTX_HEAD_PORT}`.

    Raises ValueError when it names an unknown variable or holds anything that a
    double-quoted shell word could interpret.
    """

    template: str

    def __post_init__(self) -> None:
        for name in _REFERENCE.findall(self.template):
            if name not in RUNTIME_NAMES:
                raise ValueError(f"{name} is not a runtime variable")
        if not _LITERAL.fullmatch(_REFERENCE.sub("", self.template)):
            raise ValueError(f"unsafe runtime word: {self.template!r}")


Word = str | Runtime


@dataclass(frozen=True)
class Facts:
    """All that a launcher may depend on. Batch sizes are in samples, times in seconds."""

    run_id: str
    nodes: int
    procs_per_node: int
    gpus_per_node: int
    """0 means that the ranks run on CPU with gloo."""
    strategy: Literal["ddp", "fsdp", "zero"] = "ddp"
    sharding: Literal["full", "grad-op", "hybrid"] = "full"
    zero_stage: Literal[0, 1, 2, 3] = 0
    offload_optimizer: bool = False
    offload_parameters: bool = False
    precision: Literal["fp32", "bf16", "bf16-mixed", "fp16-mixed"] = "fp32"
    micro_batch: int = 1
    accumulation: int = 1
    data_parallel_size: int = 1
    clip_grad_norm: float | None = None
    rdzv_backend: Literal["c10d", "static"] = "c10d"
    rdzv_timeout: int = 600
    extra_args: tuple[str, ...] = ()
    """The person's own flags for the launcher, already checked against the ones ptx sets."""

    @property
    def world_size(self) -> int:
        return self.nodes * self.procs_per_node


@dataclass(frozen=True)
class Launch:
    """A launcher's command up to where the shim's own command begins.

    `files` are written beside launch.sh in the bundle (path relative to it -> bytes);
    refer to them as `Runtime("${PTX_BUNDLE}/name")`.
    """

    argv: tuple[Word, ...]
    env: Mapping[str, Word] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    halves_dollars: bool = False
    """The launcher takes a rank's arguments for templates: `$$` arrives as `$`, and names such
    as `$local_rank` as what they stand for."""

    @property
    def meets_at_port(self) -> bool:
        """Whether the ranks meet at PTX_HEAD_PORT of the head node."""
        words = (word.template for word in self.argv if isinstance(word, Runtime))
        return any("${PTX_HEAD_PORT}" in word for word in words)

    def rank_words(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """A rank's command as it must stand behind `argv` to arrive as it is."""
        if not self.halves_dollars:
            return tuple(words)
        return tuple(word.replace("$", "$$") if isinstance(word, str) else word for word in words)


class Launcher(Protocol):
    """One file a launcher. Pure: no clock, no filesystem, no environment."""

    name: str
    owned_flags: frozenset[str]
    """Flags that ptx sets itself; a spec's `launcher.args` may not repeat them."""

    def render(self, facts: Facts) -> Launch: ...
