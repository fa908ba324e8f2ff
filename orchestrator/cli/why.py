"""`ptx why`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import Json, RunArgument, Runs, only_root
from orchestrator.cli.output import emit, emit_json, next_commands, note
from orchestrator.cli.still_there import still_there
from orchestrator.cli.why_page import why_fields, why_page
from orchestrator.errors import UserError
from orchestrator.runs.observe import Observed, observe_one
from orchestrator.runs.registry import name_of, resolve

Attempt = Annotated[
    int | None,
    typer.Option("--attempt", metavar="N", min=0, help="Another attempt than the newest."),
]
RuleFile = Annotated[
    list[Path] | None,
    typer.Option("--rules", metavar="FILE", help="More rules, asked before all others."),
]


def why(
    run: RunArgument,
    attempt: Attempt = None,
    rules: RuleFile = None,
    runs: Runs = None,
    as_json: Json = False,
) -> None:
    """Say why a run failed, hangs, waits or is slow: who began it, the evidence, and what to do.

    \b
    A rule of your own, in ~/.config/ptx/rules.toml, ~/.config/ptx/rules/*.toml or --rules FILE:
      [[rule]]
      id = "shard-server"
      class = "failed"
      text = ['ShardError: server (?P<host>\\S+) is away']
      cause = "the shard server {host} was away"
      next = "Start it again and resume."

    \b
    Examples:
      ptx why @last
      ptx why quickstart-4f --json
    """
    from orchestrator.diagnose.rules import all_rules
    from orchestrator.diagnose.waiting import waiting
    from orchestrator.diagnose.why import why as diagnose

    asked = all_rules(rules or ())
    layout = resolve(run, root=only_root(runs))
    with still_there([layout]):
        observed, troubles = observe_one(layout)
        if attempt is not None and attempt not in observed.state.attempts:
            raise UserError(
                f"{observed.record.run_id} has no attempt {attempt}.", hint=_known(observed)
            )
        verdict = diagnose(observed, asked, attempt=attempt)
        if verdict.kind == "waiting":
            verdict = waiting(observed, verdict)
    for trouble in troubles:
        note(f"warning: {trouble}")
    if as_json:
        emit_json(why_fields(observed, verdict))
        return
    emit(why_page(observed, verdict))
    rank = verdict.first.rank if verdict.first else None
    next_commands(*_what_now(observed, verdict.kind, rank, verdict.attempt))


def _known(run: Observed) -> str:
    numbers = ", ".join(map(str, run.state.attempts)) or "none yet"
    return f"Its attempts: {numbers}."


def _what_now(run: Observed, kind: str, rank: int | None, attempt: int | None) -> list[str]:
    name = name_of(run.layout)
    if kind == "waiting":
        return [f"ptx wait {name}", f"ptx cancel {name}"]
    if kind == "running":
        return [f"ptx top {name}", f"ptx logs {name} --follow"]
    if kind == "failed" and rank is not None:
        which = "" if attempt in (None, run.state.attempt) else f" --attempt {attempt}"
        return [f"ptx logs {name} --rank {rank}{which} --tail 50"]
    return [f"ptx status {name}"]
