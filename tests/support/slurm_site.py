"""SLURM's commands as scripts: for answers that no real SLURM gives when it is wanted."""

from __future__ import annotations

from pathlib import Path

SILENT = 'echo "$0: error: Unable to contact slurm controller" >&2; exit 1'
JOB = "JobId=7 JobState=RUNNING Restarts={restarts} Requeue={requeue} ExcNodeList=(null)"


class Site:
    """SLURM's commands as scripts, each noting that it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "asked"
        self.answers(restarts=0)

    def command(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{text}\n')
        path.chmod(0o755)

    def answers(
        self, *, restarts: int, requeue: int = 1, refuses: str = "", queue: str = ""
    ) -> None:
        says = f"echo '{refuses}' >&2; exit 1" if refuses else "exit 0"
        job = JOB.format(restarts=restarts, requeue=requeue)
        self.command("scontrol", f'[ "$1" = requeue ] || {{ echo "{job}"; exit 0; }}\n{says}')
        self.command("squeue", f"echo '{queue}'")
        self.command("sbatch", "echo 8")

    def falls_silent(self) -> None:
        for name in ("scontrol", "squeue", "sbatch"):
            self.command(name, SILENT)

    def loses_requeues(self) -> None:
        job = JOB.format(restarts=0, requeue=1)
        self.command("scontrol", f'[ "$1" = requeue ] || {{ echo "{job}"; exit 0; }}\n{SILENT}')

    def asked(self, words: str) -> int:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sum(line.startswith(words) for line in lines)
