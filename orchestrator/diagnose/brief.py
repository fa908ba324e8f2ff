"""A verdict for a column of a table. Pure."""

from __future__ import annotations

from orchestrator.diagnose.evidence import place_of
from orchestrator.diagnose.verdict import Verdict
from orchestrator.runs.words import tells_its_end


def brief(verdict: Verdict) -> str:
    """Its sentence with what matters first: without where the rank ran that began it, nor the code
    that an exception leaves anyway."""
    first = verdict.first
    if first is None:
        return verdict.sentence
    who = f"Rank {first.rank}"
    place = place_of(first.node, first.host)
    said = verdict.sentence.replace(f"{who}{place}", who, 1)
    if first.exception or tells_its_end(first.exit_code, first.message):
        said = said.replace(f"{who} exited with 1: ", f"{who}: ", 1)
    return said
