"""Failures that are provoked for real on CPU, and what `ptx why` has to say of each."""

from __future__ import annotations

from support import why_cases_ends, why_cases_group, why_cases_machine, why_cases_model

CASES = (
    *why_cases_ends.CASES,
    *why_cases_machine.CASES,
    *why_cases_group.CASES,
    *why_cases_model.CASES,
)

IN_TESTS = (
    "value-error",
    "peer-raised-4",
    "late-root",
    "segfault",
    "memory-error",
    "no-space-deepspeed",
    "port-in-use",
    "hang",
    "setup-command",
    "value-error-accelerate",
    "no-module",
    "different-collectives",
)
"""Names of those that run with the tests; all of them: benchmarks/soak/why_corpus.py."""
