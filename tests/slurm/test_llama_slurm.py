"""The Llama job with adapters and ZeRO 3 on a real SLURM, over two nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import llama_job
from support.ptx import Ptx

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


def test_two_nodes_train_one_adapter_that_plain_peft_loads(tmp_path: Path) -> None:
    where = ("--scheduler", "slurm", "--nodes", "2")
    llama_job.trains(Ptx(tmp_path / "runs"), tmp_path, where, ranks=2, nodes=2)
