"""`ptx why` over cases whose author had not seen its rules (tests/diagnose/blind).

Usage: python benchmarks/soak/why_blind.py [RESULT_FILE]. Counts for how many failures the first
rank, the class and the cause are right, how many of the causes that it claims are, and for how
many healthy runs a cause was named. Exits with 1 below the goals: rank and class each right in
95 %, and no healthy run blamed. The very first results, before any rule had seen a case, are
benchmarks/results/why_blind_first.txt and, of the cases in `second`, `third` and `fourth`,
why_blind_second_first.txt and so on.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.blind_answers import ASKED, Answers, answers  # noqa: E402


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="ptx-blind-") as folder:
        os.environ["XDG_CONFIG_HOME"] = folder  # rules of one's own would answer as well
        found = answers(Path(folder) / "runs")
    text = "\n".join(["$ python benchmarks/soak/why_blind.py", "", *_lines(found)])
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(f"{text}\n")
    return 0 if found.good_enough else 1


def _lines(found: Answers) -> list[str]:
    many, claimed = len(found.failures), len(found.claimed)
    lines = [f"{what + ' right':<12} {_share(found.right(what), many)}" for what in ASKED]
    every = sum(all(answer.right(what) for what in ASKED) for answer in found.failures)
    lines.append(f"{'all three':<12} {every} of {many}")
    right = claimed - len(found.wrongly_claimed)
    lines.append(f"of the causes that are claimed right: {_share(right, claimed)}")
    quiet = len(found.healthy) - len(found.loud)
    lines.append(f"healthy runs without a cause: {quiet} of {len(found.healthy)}")
    for what in ASKED:
        wrong = found.wrong(what)
        lines += ["", f"wrong {what}:", *(f"  {answer.line(what)}" for answer in wrong)]
    if found.loud:
        loud = [f"  {answer.case.name}: {answer.words()}" for answer in found.loud]
        lines += ["", "healthy, and yet:", *loud]
    return lines


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / max(1, whole):.1%})"


if __name__ == "__main__":
    sys.exit(main())
