"""jobs/llama_lora_zero3.yaml as shipped, with a Llama small enough for a test."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.ptx import CHECKOUT, Ptx, exit_records

SPEC = CHECKOUT / "jobs" / "llama_lora_zero3.yaml"
CONTEXT = 32
BATCHES = 3
SMALLER = {
    "resources.gpus_per_node": 0,
    "resources.memory": "null",
    "resources.cpus_per_task": "null",
    "training.precision": "fp32",  # so that the two losses can be held against each other
    "training.evaluation.batches": BATCHES,
    "training.optimizer.lr": 0.01,
    "training.schedule.warmup_steps": 2,
    "entrypoint.args.tokenizer": "bytes",
    "entrypoint.args.context": CONTEXT,
    "entrypoint.args.steps": 12,
    "logging.every_steps": 4,
}


def trains(ptx: Ptx, folder: Path, where: tuple[str, ...], *, ranks: int, nodes: int = 1) -> None:
    """It trains, and what it leaves is, over the same base in plain peft, what the ranks had."""
    base, data = folder / "base", folder / "text.txt"
    save_base(base)
    data.write_bytes(b"".join(b"the number after %d is %d\n" % (n, n + 1) for n in range(900)))
    sets = SMALLER | {
        "resources.procs_per_node": ranks // nodes,
        "entrypoint.args.model": base,
        "entrypoint.args.data": data,
    }
    options = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    run = ptx.submit(SPEC, *where, *options)
    waited = ptx("wait", run.name, "--timeout", "400s", timeout=460)
    assert waited.returncode == 0, waited.stdout + waited.stderr + ptx.story(run)
    assert [record["exit_code"] for record in exit_records(run)] == [0] * ranks

    log = next(run.rglob("rank-00000.log")).read_text()
    assert f"zero stage 3 over {ranks} ranks" in log
    assert "sample_lm.py --model=" in log
    lines = (run / "attempts" / "000" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[-1] < losses[0] - 0.1
    said = re.search(r"held-out loss (\d+\.\d+) nats/byte", log)
    assert said is not None
    samples = BATCHES * 2 * ranks  # of the micro batch that the spec says
    loss = heldout_loss(base, run / "model", data, samples=samples)
    assert loss == pytest.approx(float(said[1]), abs=2e-4)
    assert loss < heldout_loss(base, None, data, samples=samples) - 0.1


def save_base(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def heldout_loss(base: Path, adapter: Path | None, data: Path, *, samples: int) -> float:
    """Of the last twentieth of the text, with nothing but transformers and peft."""
    import torch
    import torch.nn.functional as F
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    text = data.read_bytes()
    text = text[len(text) - len(text) // 20 :]
    windows = [
        list(text[n * CONTEXT : n * CONTEXT + CONTEXT + 1])
        for n in range(min(samples, (len(text) - 1) // CONTEXT))
    ]
    tokens = torch.tensor(windows)
    with torch.no_grad():
        logits = model.eval()(tokens[:, :-1]).logits
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()
