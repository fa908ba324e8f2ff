"""Running SLURM's own client commands, and telling an absent SLURM from a refused request."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import SchedulerUnreachable
from orchestrator.schedulers.environment import clean_environment

_UNREACHABLE = re.compile(
    r"unable to contact slurm controller"
    r"|socket timed out"
    r"|connection (?:refused|timed out)"
    r"|unable to establish controller machine"
    r"|could not establish a configuration source"
    r"|unable to (?:stat(?:us)?|process) (?:slurm )?(?:configuration )?file"
    r"|zero bytes were transmitted"
    r"|communication connection failure"
    r"|munge.*(?:failed|error)|authentication (?:credential|plugin)|protocol authentication error",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def ask(argv: Sequence[str], *, timeout: float = 30) -> Answer:
    """Run one command; raise SchedulerUnreachable when it is missing, silent for `timeout`
    seconds, or says that the controller does not answer."""
    # SLURM shortens a long list of an array's elements, unless it is told not to.
    env = {**clean_environment(os.environ), "LC_ALL": "C", "SLURM_BITSTR_LEN": "0"}
    try:
        done = subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise missing(argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise unreachable(f"{argv[0]} did not answer within {timeout:.0f} s") from error
    if done.returncode != 0 and is_unreachable(done.stderr):
        raise unreachable(sentence(done.stderr))
    return Answer(done.returncode, done.stdout, done.stderr)


def ping() -> None:
    """Raise SchedulerUnreachable unless a controller or its backup says within 10 s that it is
    up. The other commands take 9 to 18 s to find out that none is there."""
    conf = os.environ.get("SLURM_CONF")
    if conf and not Path(conf).exists():  # SLURM itself would wait a minute for it
        raise unreachable(f"SLURM_CONF names {conf}, which does not exist")
    answer = ask(["scontrol", "ping"], timeout=10)
    if " is UP" not in answer.out:
        told = "\n".join(line for line in answer.out.splitlines() if "*" not in line)
        raise unreachable(sentence(told or answer.err) or "scontrol ping said nothing")


def is_unreachable(text: str) -> bool:
    return _UNREACHABLE.search(text) is not None


def sentence(text: str) -> str:
    """What a command said, without its name and severity, on one line."""
    lines = [re.sub(r"^\w+: (?:(?:error|fatal): )?", "", line) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip()))


def missing(command: str) -> SchedulerUnreachable:
    return SchedulerUnreachable(
        f"SLURM's command {command} is not on this machine",
        hint="log in to a node of the cluster, add SLURM's commands to PATH (`module load slurm` "
        "at some sites), or run here with --scheduler local",
    )


def unreachable(what: str) -> SchedulerUnreachable:
    conf = os.environ.get("SLURM_CONF")
    told = f"SLURM_CONF is {conf}" if conf else "SLURM_CONF is not set"
    return SchedulerUnreachable(
        f"SLURM does not answer: {what}",
        hint=f"see what `scontrol ping` says ({told}); are you on a login node of the cluster? "
        "`--scheduler local` runs on this machine",
    )
