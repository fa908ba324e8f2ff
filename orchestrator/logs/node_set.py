"""Which nodes are meant by --node: numbers and ranges, folders' names, hosts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from orchestrator.logs.numbers import Numbers
from orchestrator.runs.reading import read_regular

_FOLDER = re.compile(r"node-(?=\d)")
_HOST = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_LINE = 4096
"""Bytes in which a node's first event names its host."""


@dataclass(frozen=True)
class NodeSet:
    numbers: Numbers
    hosts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, option: str) -> NodeSet:
        """Raises UserError, naming the option."""
        parts = [_FOLDER.sub("", part.strip()) for part in text.split(",")]
        hosts = tuple(part for part in parts if _HOST.fullmatch(part))
        rest = [part for part in parts if part not in hosts]
        return cls(Numbers.parse(",".join(rest), option) if rest else Numbers(()), hosts)

    def covers(self, number: int, node: Path) -> bool:
        """`node`: its folder, of any attempt: a host has other numbers in others."""
        return number in self.numbers or any(same_host(host_of(node), one) for one in self.hosts)


def same_host(host: str, typed: str) -> bool:
    """Also by the first part of its name, as SLURM shows it."""
    return typed.lower() in (host.lower(), host.lower().partition(".")[0])


def host_of(node: Path) -> str:
    """Where the node of this folder ran, as its agent said first; "" where that is not known."""
    try:
        return _first_said(node)
    except (OSError, ValueError, AttributeError):
        return ""


@lru_cache(maxsize=4096)
def _first_said(node: Path) -> str:
    """The host that a node's first event names. It never changes, and each rank of a node asks;
    what fails is not kept, and asked again."""
    events = node.parents[2] / "events" / f"a{node.parent.name}-{node.name}.jsonl"
    _, data = read_regular(events, _LINE)
    host = json.loads(data.partition(b"\n")[0]).get("host")
    if not isinstance(host, str):
        raise ValueError(f"{events} names no host")
    return host
