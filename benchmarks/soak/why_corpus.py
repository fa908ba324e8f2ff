"""Failures of many kinds, provoked for real on CPU under all three launchers: does `ptx why` name
the first failing rank and the class?

Usage: python benchmarks/soak/why_corpus.py [NAME ...], without names all of them (about 6 minutes
on two cores). Kept in benchmarks/results/why.txt.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.ptx import Ptx  # noqa: E402
from support.why_cases import CASES, Case  # noqa: E402
from support.why_provoked import Told, submit, told  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "why.txt"
AT_ONCE = 2


def main() -> int:
    named = set(sys.argv[1:])
    cases = [case for case in CASES if not named or case.name in named]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ptx-why-") as folder:
        verdicts = _all(cases, Path(folder))
    text = "\n".join([*_table(verdicts), "", *_summary(verdicts, time.monotonic() - began)])
    print(text)
    if not named:
        RESULT.write_text(f"$ python benchmarks/soak/why_corpus.py\n{text}\n")
    return 0 if all(one.rank_right and one.state_right for one in verdicts) else 1


def _all(cases: Sequence[Case], folder: Path) -> list[Told]:
    ptx = Ptx(folder / "runs", {"XDG_STATE_HOME": str(folder / "state")})

    def one(case: Case) -> Told:
        return told(case, submit(case, folder / case.name, ptx, stack), ptx)

    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, cases))


def _table(verdicts: Sequence[Told]) -> list[str]:
    lines = [f"{'case':<24} {'launcher':<11} {'rank':<8} {'class':<14} {'rule':<22} right"]
    for one in verdicts:
        rank = "-" if one.rank is None else str(one.rank)
        right = "yes" if one.rank_right and one.state_right and one.rule_right else "NO"
        row = f"{one.case.name:<24} {one.case.launcher:<11} {rank:<8} {one.verdict['class']:<14} "
        lines.append(f"{row}{one.verdict['rule'] or '-':<22} {right}")
    return lines


def _summary(verdicts: Sequence[Told], seconds: float) -> list[str]:
    many = len(verdicts)
    claimed = [one for one in verdicts if one.verdict["rule"]]
    right = sum(one.rule_right for one in claimed)
    kinds = len({one.case.kind for one in verdicts})
    return [
        f"{many} cases of {kinds} kinds in {seconds:.0f} s",
        f"rank right       {sum(one.rank_right for one in verdicts)} of {many}",
        f"class right      {sum(one.state_right for one in verdicts)} of {many}",
        f"cause claimed    {len(claimed)} of {many}, right in {right} (precision "
        f"{right / max(1, len(claimed)):.2f})",
        *(f"WRONG {one}" for one in verdicts if not (one.rank_right and one.state_right)),
    ]


if __name__ == "__main__":
    sys.exit(main())
