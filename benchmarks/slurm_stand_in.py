"""SLURM's commands as programs that note each call and answer with what SLURM prints."""

from __future__ import annotations

from pathlib import Path

from run_folders import Case


def stand_in_slurm(folder: Path, chosen: list[Case]) -> Path:
    """squeue, sacct and scontrol as programs; each call is a line in the file that is returned.

    squeue answers in the format that it is asked for; it has forgotten some of the jobs, as after
    MinJobAge, and those sacct knows.
    """
    folder.mkdir()
    calls, rows = folder / "calls", folder / "rows"
    calls.touch()
    with rows.open("w") as file:
        for case in chosen:
            if case.live:
                waits = int(case.job_id) % 5 == 0
                state = ("PENDING", "Priority") if waits else ("RUNNING", "None")
                file.write("|".join((case.job_id, *state, case.run_id)) + "\n")
    programs = {
        "scontrol": "echo 'Slurmctld(primary) at head is UP'",
        "squeue": f'case "$*" in *%j*) cat {rows};; *) cut -d"|" -f1-3 {rows};; esac',
        "sacct": ":",
    }
    for name, does in programs.items():
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {calls}\n{does}\n")
        (folder / name).chmod(0o755)
    return calls
