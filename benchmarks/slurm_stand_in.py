"""SLURM's commands as programs that note each call and answer with what SLURM prints."""

from __future__ import annotations

from pathlib import Path

from run_folders import Case

FORGOTTEN = 10
"""One job in so many."""


def stand_in_slurm(folder: Path, chosen: list[Case]) -> Path:
    """squeue, sacct and scontrol as programs; each call is a line in the file that is returned.

    squeue answers in the format that it is asked for; it has forgotten one job in ten, as after
    MinJobAge, and those sacct knows: they have run into their time limit.
    """
    folder.mkdir()
    calls, rows, forgotten = (folder / name for name in ("calls", "rows", "forgotten"))
    calls.touch()
    living = [case for case in chosen if case.live]
    with forgotten.open("w") as file:
        file.writelines(f"{case.job_id}|TIMEOUT|0:0\n" for case in living[::FORGOTTEN])
    with rows.open("w") as file:
        for number, case in enumerate(living):
            if number % FORGOTTEN:
                waits = int(case.job_id) % 5 == 0
                state = ("PENDING", "Priority") if waits else ("RUNNING", "None")
                file.write("|".join((case.job_id, *state, case.run_id)) + "\n")
    programs = {
        "scontrol": "echo 'Slurmctld(primary) at head is UP'",
        "squeue": f'case "$*" in *%j*) cat {rows};; *) cut -d"|" -f1-3 {rows};; esac',
        "sacct": f"cat {forgotten}",
    }
    for name, does in programs.items():
        (folder / name).write_text(f"#!/bin/sh\necho {name} >> {calls}\n{does}\n")
        (folder / name).chmod(0o755)
    return calls
