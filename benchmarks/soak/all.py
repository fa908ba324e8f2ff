"""The whole soak suite: every matrix of which the tests take a part, one after the other.

    python benchmarks/soak/all.py [NAME ...]

About two and a half hours on two cores that do nothing else. Wants root and Debian, as the test
SLURM does (see tests/slurm/README.md). Each part keeps its own results; how each ended, and after
how long, is kept in benchmarks/results/soak.txt, what it printed in the folder that is named at the
end. Exit code 1 where any failed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "slurm")]

from cluster import Cluster  # noqa: E402
from measure import machine, machine_line  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "soak.txt"
PORT = 29900


class Part(NamedTuple):
    argv: tuple[str, ...]
    on_slurm: bool = False
    """Whether it wants a SLURM that runs; the others start their own."""
    environ: Mapping[str, str] = {}


def _script(name: str, *words: str, on_slurm: bool = False) -> Part:
    return Part((f"benchmarks/soak/{name}.py", *words), on_slurm)


PARTS = {
    "kills_during_saves": _script("kills_during_saves"),
    "any_to_any": _script("any_to_any"),
    "why_blind": _script("why_blind"),
    "submit_kills": _script("submit_kills", "40", on_slurm=True),
    "why_corpus": _script("why_corpus", on_slurm=True),
    "tests": Part(
        ("-m", "pytest", "--slurm", "-n", "0", "-m", "soak", "-rA", "--tb=short"),
        environ={"PTX_SOAK": "1"},
    ),
    "punisher": _script("punisher"),
    "disturbed": _script("disturbed"),
}
"""The short ones first."""
_OUTCOME = re.compile(r"^(?:PASSED|FAILED|ERROR|SKIPPED|XFAIL) .*", re.MULTILINE)


def run(name: str, logs: Path, slurm_conf: Path | None) -> tuple[int, float]:
    """Exit code and seconds."""
    part = PARTS[name]
    env = {**os.environ, **part.environ}
    env.pop("SLURM_CONF", None)
    if part.on_slurm:
        env["SLURM_CONF"] = str(slurm_conf)
    begun = time.monotonic()
    with (logs / f"{name}.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, *part.argv], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT
        )
    return done.returncode, time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PARTS))
    names = parser.parse_args().names or [*PARTS]
    if unknown := sorted({*names} - {*PARTS}):
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    command = " ".join(["$ python benchmarks/soak/all.py", *sys.argv[1:]])
    lines = [command, machine_line(machine(["torch", "accelerate", "deepspeed", "submitit"]))]
    logs = Path(tempfile.mkdtemp(prefix="ptx-soaks-"))
    failed = 0
    for name in names:
        cluster = Cluster(logs / "slurm", port=PORT) if PARTS[name].on_slurm else None
        if cluster is not None:
            cluster.start()
        try:
            code, seconds = run(name, logs, cluster and cluster.conf)
        finally:
            if cluster is not None:
                cluster.stop()
        failed += code != 0
        how = f"FAILED ({code})" if code else "passed"
        lines.append(f"{name:<20} {how:<12} {seconds:6.0f} s")
        print(lines[-1], flush=True)
        if name == "tests":
            lines += [f"    {one}" for one in _OUTCOME.findall((logs / "tests.log").read_text())]
        RESULT.write_text("\n".join(lines) + "\n")
    print(f"what they printed lies in {logs}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
