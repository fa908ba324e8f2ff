"""Failures of many kinds, provoked for real on CPU under all three launchers: does `ptx why` name
the first failing rank and the class?

Usage: python benchmarks/soak/why_corpus.py [NAME ...], without names all of them (about 12 minutes
on two cores). Exits with 1 where a rank or class is wrong, fewer than 95 % of the causes that are
claimed are right, a cause is claimed of a run that does well, or a case did not come about. Where
SLURM_CONF names the test cluster (tests/slurm/cluster.py) also those over two nodes of SLURM; a
node of it is killed, `cluster.py start` brings it back. Kept in benchmarks/results/why.txt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests")]

from measure import machine, machine_line  # noqa: E402
from support.ptx import Ptx  # noqa: E402
from support.why_case import Case  # noqa: E402
from support.why_cases import CASES  # noqa: E402
from support.why_healthy import HEALTHY  # noqa: E402
from support.why_provoked import Told, ask_healthy, good_enough, submit, told  # noqa: E402
from support.why_slurm_cases import SLURM_CASES, SlurmCase  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "why.txt"
AT_ONCE = 2


def main() -> int:
    named = set(sys.argv[1:])
    known = [*CASES, *(SLURM_CASES if "SLURM_CONF" in os.environ else ())]
    cases = [case for case in known if not named or case.name in named]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ptx-why-") as folder:
        verdicts, lost = _all(cases, Path(folder))
        good, blamed = _healthy(Path(folder)) if not named or "healthy" in named else ([], [])
    seconds = time.monotonic() - began
    text = "\n".join([*_table(verdicts), "", *_summary(verdicts, seconds), *lost, *good])
    print(text)
    if not named:
        head = f"$ python benchmarks/soak/why_corpus.py\n{machine_line(machine(['torch']))}"
        RESULT.write_text(f"{head}\n{text}\n")
    return 0 if good_enough(verdicts) and not lost and not blamed else 1


def _all(cases: Sequence[Case], folder: Path) -> tuple[list[Told], list[str]]:
    """What was told, in the order of the cases, and which of them did not come about."""
    ptx = Ptx(folder / "runs", {"XDG_STATE_HOME": str(folder / "state")})
    lost: list[str] = []

    def one(case: Case) -> Told | None:
        try:
            verdict = told(case, submit(case, folder / case.name, ptx, stack), ptx)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            lost.append(f"NOT PROVOKED {case.name}: {str(error).splitlines()[0]}")
            return None
        print(_row(verdict), file=sys.stderr, flush=True)
        return verdict

    together = [case for case in cases if not _alone(case)]
    with ExitStack() as stack, ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(one, together))
        found += [one(case) for case in cases if _alone(case)]
    return [verdict for verdict in found if verdict is not None], lost


def _healthy(folder: Path) -> tuple[list[str], list[str]]:
    """Runs that do well and sound like trouble; then with an end in silence. What is to be said of
    them, and those of which a cause was claimed."""
    ptx = Ptx(folder / "healthy-runs", {"XDG_STATE_HOME": str(folder / "healthy-state")})
    lines, loud = [], []
    for silent in (False, True):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(ask_healthy, ptx, folder, one, silent=silent) for one in HEALTHY]
            found = [job.result() for job in jobs]
        blamed = [name for name, one in found if one["rule"] or one["cause"] or one["findings"]]
        what = "such words, 12 s later an end in silence" if silent else "healthy"
        said = f"{what}: {len(found)} runs, {len(blamed)} with a false cause"
        lines.append(f"{said} ({', '.join(blamed)})" if blamed else said)
        loud += blamed
    return lines, loud


def _alone(case: Case) -> bool:
    return isinstance(case, SlurmCase) and case.alone


def _table(verdicts: Sequence[Told]) -> list[str]:
    lines = [
        f"{'case':<24} {'on':<6} {'launcher':<11} {'rank':<8} {'class':<14} {'rule':<22} right"
    ]
    return [*lines, *map(_row, verdicts)]


def _row(one: Told) -> str:
    rank = "-" if one.rank is None else str(one.rank)
    right = "yes" if one.rank_right and one.state_right and one.rule_right else "NO"
    where = "slurm" if isinstance(one.case, SlurmCase) else "local"
    who = f"{one.case.name:<24} {where:<6} {one.case.launcher:<11}"
    what = f"{rank:<8} {one.verdict['class']:<14} {one.verdict['rule'] or '-':<22}"
    return f"{who} {what} {right}"


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
        *(
            f"WRONG {one.case.name}: {one.verdict['sentence']}"
            for one in verdicts
            if not (one.rank_right and one.state_right and one.rule_right)
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
