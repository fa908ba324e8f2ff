"""`ptx why` over cases whose author had not seen its rules (tests/diagnose/blind).

Usage: python benchmarks/soak/why_blind.py [RESULT_FILE]. Counts for how many failures the first
rank, the class and the cause are right, and for how many healthy runs a cause was named. The very
first results, before any rule had seen a case, are benchmarks/results/why_blind_first.txt and, of
the cases in `second`, why_blind_second_first.txt.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.blind_cases import Case, build, cases, words_in  # noqa: E402
from support.ptx import Ptx  # noqa: E402


class Answer(NamedTuple):
    case: Case
    said: Mapping[str, Any]

    @property
    def rank(self) -> object:
        first = self.said.get("first")
        return "none" if not isinstance(first, Mapping) else first.get("rank", "none")

    @property
    def text(self) -> str:
        return f"{self.said.get('cause') or ''}\n{self.said.get('next') or ''}"

    @property
    def silent(self) -> bool:
        return self.said.get("cause") is None and self.rank == "none"

    def right(self, what: str) -> bool:
        expected = self.case.expected
        if what == "cause":
            return words_in(expected["words"], self.text)
        got = self.rank if what == "rank" else self.said.get("class")
        return got in _listed(expected[what])

    def line(self, what: str) -> str:
        expected = self.case.expected
        if what == "cause":
            return f"{self.case.name}: {expected['kind']}\n      said: {self.words()}"
        got = self.rank if what == "rank" else self.said.get("class")
        wanted = " or ".join(map(str, _listed(expected[what])))
        return f"{self.case.name}: {got}, not {wanted} ({self.words()})"

    def words(self) -> str:
        said = f"[{self.said.get('rule')}] {self.said.get('cause')} -> {self.said.get('next')}"
        return " ".join(said.split())[:300]


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def ask(case: Case, folder: Path) -> Answer:
    ptx = Ptx(folder, env={"XDG_STATE_HOME": str(folder / "state")})
    done = ptx("why", str(build(case, folder)), "--json")
    try:
        return Answer(case, json.loads(done.stdout))
    except ValueError:
        return Answer(case, {"cause": f"no JSON: {done.stderr.strip()[-200:]}", "rule": "-"})


def main() -> int:
    os.environ.pop("PTX_RUNS", None)
    with tempfile.TemporaryDirectory(prefix="ptx-blind-") as folder:
        answers = [ask(case, Path(folder)) for case in cases()]
    failures = [answer for answer in answers if not answer.case.healthy]
    healthy = [answer for answer in answers if answer.case.healthy]
    lines = ["$ python benchmarks/soak/why_blind.py", ""]
    wrong: dict[str, list[Answer]] = {}
    for what in ("rank", "class", "cause"):
        wrong[what] = [answer for answer in failures if not answer.right(what)]
        right = len(failures) - len(wrong[what])
        lines.append(
            f"{what + ' right':<12} {right} of {len(failures)} ({right / len(failures):.1%})"
        )
    every = [a for a in failures if not any(a in wrong[what] for what in wrong)]
    lines.append(f"{'all three':<12} {len(every)} of {len(failures)}")
    loud = [answer for answer in healthy if not answer.silent]
    lines.append(f"healthy runs without a cause: {len(healthy) - len(loud)} of {len(healthy)}")
    for what, missed in wrong.items():
        lines += ["", f"wrong {what}:", *(f"  {answer.line(what)}" for answer in missed)]
    if loud:
        lines += ["", "healthy, and yet:", *(f"  {a.case.name}: {a.words()}" for a in loud)]
    print("\n".join(lines))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
