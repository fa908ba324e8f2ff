"""Run by each rank of benchmarks/training.py: all pairs, one after the other, in one process.

Usage: python -m peers.rank OUT.json TASK PEERS PAIRS, TASK a JSON object of Task's fields, PEERS
joined by commas. Rank 0 writes a list of `{"peer", "ptx": run, "other": run}` with a run
`{"seconds", "loss"}`: of the timed steps, and on held-out bytes afterwards.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from orchestrator.training.language.corpus import load_corpus
from orchestrator.training.language.windows import Windows
from peers.task import Contender, Task, mean_loss, quiet

MODULES = {"ptx": "ptx_loop", "bare": "bare_ddp", "trainer": "hf_trainer", "fabric": "fabric"}


def contender(name: str) -> Contender:
    train: Contender = importlib.import_module(f"peers.{MODULES[name]}").train
    return train


def timed(train: Contender, task: Task, data: Windows, heldout: Windows) -> dict[str, float]:
    gc.collect()
    dist.barrier()
    with quiet():
        model, clock = train(task, data)
    batch = heldout.take(range(32))
    with torch.no_grad():
        loss = mean_loss(model.eval(), batch.inputs["tokens"], batch.targets)
    return {"seconds": clock.seconds(task), "loss": loss.item()}


def main() -> None:
    out, fields, names, pairs = sys.argv[1:]
    task, peers = Task(**json.loads(fields)), names.split(",")
    dist.init_process_group("gloo")
    corpus = load_corpus(None)
    data, heldout = Windows(corpus.train, task.context), Windows(corpus.heldout, task.context)
    contenders = {name: contender(name) for name in ("ptx", *peers)}
    for train in contenders.values():  # first use of anything is slow
        timed(train, task, data, heldout)
    found = []
    for number in range(int(pairs)):
        for peer in peers:
            order = ("ptx", peer) if number % 2 == 0 else (peer, "ptx")
            runs = {name: timed(contenders[name], task, data, heldout) for name in order}
            found.append({"peer": peer, "ptx": runs["ptx"], "other": runs[peer]})
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(found))
    dist.barrier()  # the file is there before any rank is gone
    sys.stdout.flush()
    # Now and then torch 2.13 aborts where the interpreter takes gloo's threads apart.
    os._exit(0)


if __name__ == "__main__":
    main()
