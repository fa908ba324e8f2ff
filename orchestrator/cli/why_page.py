"""A verdict on one screen, and as JSON. The keys are public: tests/cli/public.json holds them."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.output import labelled, paint, paint_state
from orchestrator.diagnose.evidence import place_of
from orchestrator.diagnose.performance import Finding
from orchestrator.diagnose.verdict import Before, Evidence, First, Others, Stand, Verdict
from orchestrator.logs.numbers import spoken
from orchestrator.logs.screen import plain
from orchestrator.runs.observe import Observed
from orchestrator.runs.words import printable, sentence

_LABEL = 10
_PAINTED = ("run", "class")
"""Rows that hold our own words and colours alone."""
_MOST_STANDS = 16
_FEW = 8
"""Ranks at one place that are named, and not only counted."""
_SHOWN_WIDTH = 300
"""Characters of a line of evidence; `ptx logs` shows all of it."""


def why_page(run: Observed, verdict: Verdict) -> str:
    rows = [
        ("run", f"{printable(run.record.run_id)}  {paint_state(run.state.state.value)}"),
        ("", _goes_on(run, verdict)),
        ("why", verdict.sentence),
        ("where", _where(run, verdict)),
        ("class", _class(verdict)),
        ("cause", "" if _said_already(verdict) else verdict.cause),
        ("do", verdict.next),
        *_stands(verdict.stands),
        *_evidence(verdict.evidence),
        *_others(verdict.others),
        *_findings(verdict.findings),
    ]
    if verdict.before:
        rows.append(("before", f"attempt {verdict.before.attempt}: {verdict.before.sentence}"))
    if verdict.unsure:
        rows.append(("or", f"rank {spoken(verdict.unsure)} as well: they were silent too"))
    return "\n".join(_row(label, text) for label, text in rows if text)


def _goes_on(run: Observed, verdict: Verdict) -> str:
    """What a run does whose newest attempt has failed: `Restarting.` What follows is the verdict,
    in the words of somebody who has not read the logs."""
    if verdict.kind != "failed" or run.state.state.ended or verdict.attempt != run.state.attempt:
        return ""
    return sentence(run.state.reason.partition(": ")[0])


def _where(run: Observed, verdict: Verdict) -> str:
    """`attempt 1, node 0 (gn07), GPU 3`, as far as it is known."""
    if verdict.kind != "failed" or verdict.attempt is None:
        return ""
    newest = run.state.attempt
    later = f" (the newest is {newest})" if newest not in (None, verdict.attempt) else ""
    parts = [f"attempt {verdict.attempt}{later}"]
    first, node = verdict.first, verdict.node
    if first is not None and first.node == node:
        parts += [place_of(node, first.host), _gpu(first.device)]
    else:
        nodes = () if later else run.state.nodes
        hosts: dict[int | None, str] = {one.node: one.host for one in nodes}
        parts.append(place_of(node, hosts.get(node, "")))
    return ", ".join(part.removeprefix(" on ") for part in parts if part)


def _gpu(device: str) -> str:
    """`GPU 3`; a UUID says itself what it is of."""
    return device if not device or device.startswith(("GPU-", "MIG-")) else f"GPU {device}"


def _class(verdict: Verdict) -> str:
    if verdict.kind != "failed":
        return ""
    own = verdict.first is not None and verdict.first.exception
    source = f"rule {verdict.rule}" if verdict.rule else "its own error" if own else "no rule fits"
    return paint_state(verdict.state) + paint(f"  ({source})", "dim")


def _said_already(verdict: Verdict) -> bool:
    return verdict.cause.rstrip(".").lower() in verdict.sentence.lower()


def _evidence(evidence: tuple[Evidence, ...]) -> list[tuple[str, str]]:
    rows = []
    for number, one in enumerate(evidence):
        where = f"{one.path}:{one.line}" if one.line is not None else f"{one.path} (near its end)"
        rows.append(
            ("evidence" if number == 0 else "", f"{where}\n{_cut(plain(one.text))}".rstrip("\n"))
        )
    return rows


def _stands(stands: tuple[Stand, ...]) -> list[tuple[str, str]]:
    """`63 ranks: all_reduce, loop.py:88`."""
    lines = []
    for one in stands[:_MOST_STANDS]:
        many = f"{len(one.ranks)} ranks" if len(one.ranks) > 1 else "1 rank"
        where = f", {one.path.rsplit('/', 1)[-1]}:{one.line}" if one.path else ""
        who = f" (rank {spoken(one.ranks)})" if one.stopped or len(one.ranks) <= _FEW else ""
        lines.append(f"{many}{who}: {one.call or 'left no stack'}{where}")
    more = sum(len(one.ranks) for one in stands[_MOST_STANDS:])
    lines += [f"… and {more} more ranks elsewhere"] if more else []
    return [("stood", "\n".join(lines))] if lines else []


def _others(others: tuple[Others, ...]) -> list[tuple[str, str]]:
    told = [f"rank {spoken(group.ranks)}: {group.what}" for group in others]
    return [("after it", "\n".join(told))] if told else []


def _findings(found: tuple[Finding, ...]) -> list[tuple[str, str]]:
    rows = []
    for one in found:
        rows += [("slow", one.sentence), ("cause", sentence(one.cause)), ("do", one.next)]
        rows += _evidence(one.evidence)
    return rows


def _cut(line: str) -> str:
    line = line.strip()
    return line if len(line) <= _SHOWN_WIDTH else f"{line[: _SHOWN_WIDTH - 1]}…"


def _row(label: str, text: str) -> str:
    lines = text.split("\n")
    clean = text if label in _PAINTED else "\n".join(map(printable, lines))
    return labelled(label, clean, _LABEL)


def why_fields(run: Observed, verdict: Verdict) -> dict[str, Any]:
    return {
        "run_id": run.record.run_id,
        "state": run.state.state.value,
        "verdict": verdict.kind,
        "class": verdict.state,
        "sentence": verdict.sentence,
        "attempt": verdict.attempt,
        "node": verdict.node,
        "first": _first(verdict.first),
        "rule": verdict.rule or None,
        "cause": verdict.cause or None,
        "next": verdict.next or None,
        "evidence": [_evidence_fields(one) for one in verdict.evidence],
        "others": [{"what": group.what, "ranks": list(group.ranks)} for group in verdict.others],
        "unsure": list(verdict.unsure),
        "stands": [
            {
                "ranks": list(one.ranks),
                "call": one.call or None,
                "path": one.path or None,
                "line": one.line,
                "stopped": one.stopped,
            }
            for one in verdict.stands
        ],
        "findings": [
            {
                "kind": one.kind,
                "sentence": one.sentence,
                "cause": one.cause,
                "next": one.next,
                "attempt": one.attempt,
                "ranks": list(one.ranks),
                "nodes": list(one.nodes),
                "evidence": [_evidence_fields(row) for row in one.evidence],
            }
            for one in verdict.findings
        ],
        "before": _before(verdict.before),
    }


def _evidence_fields(one: Evidence) -> dict[str, Any]:
    return {"path": one.path, "line": one.line, "text": plain(one.text), "rank": one.rank}


def _before(before: Before | None) -> dict[str, Any] | None:
    if before is None:
        return None
    return {"attempt": before.attempt, "class": before.state, "sentence": before.sentence}


def _first(first: First | None) -> dict[str, Any] | None:
    if first is None:
        return None
    return {
        "rank": first.rank,
        "node": first.node,
        "host": first.host or None,
        "device": first.device or None,
        "exit_code": first.exit_code,
        "signal": first.signal,
        "exception": first.exception or None,
        "message": first.message or None,
        "t": first.ended,
    }
