"""One thing that costs a run time. Pure data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.diagnose.verdict import Evidence


@dataclass(frozen=True)
class Finding:
    """As a verdict says it."""

    kind: str
    """straggler, data-bound, throttled-gpu or idle-gpu."""
    sentence: str
    """All of it in one line, with what was measured."""
    cause: str
    next: str
    evidence: tuple[Evidence, ...]
    attempt: int
    ranks: tuple[int, ...] = ()
    """Whose it is; () where it is all ranks'."""
    nodes: tuple[int, ...] = ()
    by_data: bool = False
    """Of a straggler: its data is what it waits for."""

    def on_nodes(self, nodes: Mapping[int, int]) -> Finding:
        """With the nodes of its ranks in the sentence, as far as they are known."""
        sentence = self.sentence
        for rank in self.ranks:
            if rank in nodes:
                place = f"rank {rank} ({node_name(nodes[rank])}) "
                sentence = sentence.replace(f"rank {rank} ", place, 1)
        found = {nodes[rank] for rank in self.ranks if rank in nodes}
        return replace(self, sentence=sentence, nodes=tuple(sorted(found)))


def node_name(node: int) -> str:
    """As its folder is called."""
    return f"node-{node:04d}"


def seconds(value: float) -> str:
    """`0.41 s`, `8.3 ms`, `12.5 s`: three digits at most."""
    if value < 0.1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def listed(words: Iterable[str], most: int = 4) -> str:
    """`a, b and c`, `a, b, c, d and 5 more`."""
    every = list(words)
    if len(every) > most:
        every = [*every[:most], f"{len(every) - most} more"]
    return " and ".join([", ".join(every[:-1]), every[-1]] if len(every) > 1 else every)
