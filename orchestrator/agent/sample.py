"""The sampler of a node: every few seconds one line in samples.jsonl about GPUs, CPU and memory.

A process of its own, below the agent and ended by it: a driver call may hang for ever when a GPU
falls off the bus, and the agent must not. It bears no mark of the run, so nobody takes it for one
of its processes, and the kernel ends it when the agent dies.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from orchestrator.agent.linux import set_name
from orchestrator.agent.sample_file import SampleFile
from orchestrator.agent.sample_gpus import Gpus
from orchestrator.agent.sample_host import Cpu, memory
from orchestrator.agent.sample_ranks import Ranks

NAME = "ptx-sampler"
_FIRST = 1.0
"""Seconds to the first sample: use of CPU is a difference."""
_SHARE = 0.005
"""Of one core. Where samples cost more, on nodes with thousands of processes, they get rarer."""


def run_sample(words: list[str]) -> int:
    """`NODE_DIR MODE INTERVAL RANKS [DEVICES]`: sample until the agent that started this is gone.

    MODE: of the file, octal. INTERVAL in seconds. RANKS: how many this node is to have. DEVICES:
    the node's GPUs as CUDA_VISIBLE_DEVICES names them; without them the driver is not asked.
    """
    agent = os.getppid()
    set_name(NAME)
    interval = float(words[2])
    sampler = Sampler(agent, int(words[3]), words[4] if len(words) > 4 else "")
    file = SampleFile(Path(words[0]) / "samples.jsonl", int(words[1], 8))
    time.sleep(min(_FIRST, interval))
    begun, samples = time.process_time(), 0
    while os.getppid() == agent:
        file.append(json.dumps(sampler.sample(), separators=(",", ":")).encode() + b"\n")
        samples += 1
        cost = (time.process_time() - begun) / samples
        time.sleep(max(interval, cost / _SHARE))
    return 0


class Sampler:
    """What is seen of this node now; `used` of CPUs since the sample before."""

    def __init__(self, agent: int, ranks: int, devices: str) -> None:
        self._cpu = Cpu()
        self._ranks = Ranks(agent, ranks)
        self._gpus = Gpus(devices)

    def sample(self) -> dict[str, Any]:
        ranks = self._ranks.sample()
        return {
            "v": 1,
            "t": round(time.time(), 3),
            "cpu": self._cpu.sample(),
            "memory": memory(),
            "gpus": self._gpus.sample(self._ranks.local),
            "ranks": ranks,
        }
