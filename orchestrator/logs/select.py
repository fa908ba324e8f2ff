"""Which rank logs of a run are meant, and which there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import NotFound, UserError
from orchestrator.logs.discovery import attempts, names, node_folders, node_number, ranks
from orchestrator.logs.node_set import NodeSet, host_of, same_host
from orchestrator.logs.numbers import Numbers, spoken
from orchestrator.runs.layout import RunLayout

_SHOWN = 8
"""Nodes that a message names."""


@dataclass(frozen=True, order=True)
class RankLog:
    attempt: int
    node: int
    rank: int
    path: Path
    """Of its first part; see discovery.py for the others."""


@dataclass(frozen=True)
class Selection:
    """None stands for all; `attempt` None for the newest one that has a rank log."""

    ranks: Numbers | None = None
    nodes: NodeSet | None = None
    attempt: int | None = None
    all_attempts: bool = False

    @classmethod
    def of(cls, rank: str | None, node: str | None, attempt: str | None) -> Selection:
        """From the options as typed. Raises UserError."""
        return cls(
            ranks=None if rank is None else Numbers.parse(rank, "--rank"),
            nodes=None if node is None else NodeSet.parse(node, "--node"),
            attempt=_attempt(attempt),
            all_attempts=attempt == "all",
        )

    def covers(self, log: RankLog) -> bool:
        return (self.ranks is None or log.rank in self.ranks) and (
            self.nodes is None or self.nodes.covers(log.node, log.path.parent)
        )


def discover(layout: RunLayout) -> list[RankLog]:
    """Every rank log of every attempt, in order of attempt, node and rank."""
    return sorted(
        log
        for attempt in attempts(layout)
        for node in node_folders(layout.attempt(attempt))
        for log in rank_logs(attempt, node)
    )


def select(
    layout: RunLayout, selection: Selection, world_size: int = 0, nodes: int = 0
) -> list[RankLog]:
    """The rank logs that are meant; [] when the run has none at all yet.

    Raises NotFound where nothing fits, and for a rank beyond the `world_size`, or a node beyond the
    `nodes`, and without a log, naming those that exist. Where both are given, 0 being unknown, what
    fits may be still to come.
    """
    found = discover(layout)
    if not found:
        return []
    if not selection.all_attempts:
        wanted = found[-1].attempt if selection.attempt is None else selection.attempt
        numbers = sorted({log.attempt for log in found})
        found = [log for log in found if log.attempt == wanted]
        if not found:
            raise NotFound(
                f"Attempt {wanted} of {layout.run_id} has no rank log.",
                hint=f"Attempts with logs: {spoken(numbers)}; --attempt all shows them together.",
            )
    _refuse_strangers(layout, selection, found, world_size, nodes)
    _refuse_strange_hosts(layout, selection.nodes.hosts if selection.nodes else (), found)
    chosen = [log for log in found if selection.covers(log)]
    if not chosen and not (world_size and nodes):
        raise NotFound(
            f"No rank log of {layout.run_id} fits these options.",
            hint="; ".join(
                f"node {node} has rank {spoken(log.rank for log in found if log.node == node)}"
                for node in sorted({log.node for log in found})[:8]
            ),
        )
    return chosen


def _refuse_strangers(
    layout: RunLayout, selection: Selection, found: list[RankLog], world_size: int, nodes: int
) -> None:
    """Each number that was typed must lie where there is something, at least in part."""
    numbers = selection.nodes.numbers if selection.nodes else None
    for wanted, exist, noun, limit in (
        (selection.ranks, sorted({log.rank for log in found}), "rank", world_size),
        (numbers, sorted({log.node for log in found}), "node", nodes),
    ):
        for first, last in wanted.ranges if wanted is not None else ():
            if first >= limit and not any(first <= number <= last for number in exist):
                which = f"{noun} {first}" if first == last else f"{noun} {first} to {last}"
                raise NotFound(
                    f"{layout.run_id} has no log of {which}.",
                    hint=f"There are logs of {noun} {spoken(exist)}.",
                )


def _refuse_strange_hosts(layout: RunLayout, typed: Sequence[str], found: list[RankLog]) -> None:
    nodes = {log.node: log.path.parent for log in found} if typed else {}
    hosts = {node: host_of(folder) for node, folder in sorted(nodes.items())}
    for one in typed:
        if not any(same_host(host, one) for host in hosts.values()):
            raise NotFound(
                f"{layout.run_id} has no log of a host {one}.",
                hint=f"There are logs of {_shown(hosts)}.",
            )


def _shown(hosts: Mapping[int, str]) -> str:
    named = [f"{host} (node {node})" if host else f"node {node}" for node, host in hosts.items()]
    more = len(named) - _SHOWN
    return ", ".join(named[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def rank_logs(attempt: int, node: Path) -> Iterator[RankLog]:
    """The logs in one node's folder."""
    number = node_number(node)
    for rank in ranks(names(node)):
        yield RankLog(attempt, number, rank, node / f"rank-{rank:05d}.log")


def _attempt(text: str | None) -> int | None:
    if text is None or text == "all":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UserError(
            f"--attempt {text!r} is not the number of an attempt.",
            hint="Attempts count from 0; without the option the newest is shown, `all` shows all.",
        )
    return int(text)
