"""Run by each rank: trains language models in many ways and exports what they have become.

Usage: lm_ranks.py OUT CASES, where CASES is a JSON object of cases by name; a case is
`{"settings": {...}, "training": {...}, "strategy": {...}}`, all optional. Leaves OUT/NAME, the
exported model, in OUT/heldout.json each model's loss on the held-out text as the ranks have it, and
in OUT/NAME.logits their logits for the first sample of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.language import BYTES, plan_with, settings

from orchestrator.training.engines import build_engine
from orchestrator.training.entrypoint import run
from orchestrator.training.evaluation import evaluate
from orchestrator.training.language.export import export
from orchestrator.training.language.models import build_language_model
from orchestrator.training.language.windows import Windows
from orchestrator.training.layout import layout_of
from orchestrator.training.loop import Trainer
from orchestrator.training.plan import TrainingPlan, load_plan
from orchestrator.training.precision import prepare_arithmetic
from orchestrator.training.process_group import Rank, process_group, rank_from
from orchestrator.training.stop import StopVote

STEPS = 3


def trained(plan: TrainingPlan, rank: Rank, case: dict[str, Any], folder: Path) -> float:
    import torch

    training = {"micro_batch": 2, "optimizer": {"lr": 1e-2}} | case.get("training", {})
    asked = plan_with(training, case.get("strategy"))
    plan = dataclasses.replace(plan, training=asked.training, strategy=asked.strategy)
    layout = layout_of(plan, rank.rank)
    batch = plan.training.micro_batch * plan.training.accumulation * layout.data_size
    plan = dataclasses.replace(plan, global_batch=batch)
    prepare_arithmetic(plan.training)
    text = torch.tensor(list(Path(__file__).read_bytes()), dtype=torch.uint8)
    data, heldout = Windows(text[:1000], 32), Windows(text[1000:1300], 32)
    language = build_language_model(settings(**case.get("settings", {})), plan, rank, BYTES)
    engine = build_engine(language.objective, plan, rank, layout)
    with StopVote() as stop:
        Trainer(engine, data, plan, rank, layout).fit(STEPS, None, stop)
    loss = evaluate(engine, heldout, layout, micro_batch=2)
    _, logits = engine.evaluate(heldout.take([0]), want_logits=True)
    if logits is not None and layout.data_rank == 0:
        torch.save(logits.cpu(), folder.with_suffix(".logits"))
    state = engine.state(language.form.names.__contains__)
    if rank.is_main:
        export(language.form, state, folder, tokenizer=BYTES, step=STEPS)
    return loss


def main(argv: Sequence[str]) -> int:
    out, cases = argv
    plan = load_plan(os.environ, gpus=0)
    rank = rank_from(os.environ, plan)
    with process_group(plan, rank):
        found = {
            name: trained(plan, rank, case, Path(out, name))
            for name, case in json.loads(cases).items()
        }
    if rank.is_main:
        Path(out, "heldout.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    run(main)
