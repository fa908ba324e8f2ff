"""This SLURM job, through SLURM's own commands, as seen from its batch step or a node of it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orchestrator.agent.hosts import expand

_TIMEOUT = 60
_CLOCK = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
_SILENCE = re.compile(
    r"unable to contact slurm controller|timed out|connection refused"
    r"|communication connection failure|zero bytes were transmitted|standby mode"
    r"|unable to establish controller machine|could not establish a configuration source"
    r"|munge.*(?:failed|error)|authentication (?:credential|plugin)|authentication error",
    re.IGNORECASE,
)
_GONE = ("down", "fail", "drained", "unknown", "boot", "power")
"""Beginnings of sinfo's words for nodes that can start nothing now."""

_SERVES = re.compile(r"(?:allocated|mixed|idle|completing)[-+]?")
"""Those that start jobs, or will when theirs have ended: `-` is planned for one, `+` ends one."""


class Answer(NamedTuple):
    code: int
    out: str
    said: str


def ask(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Answer:
    """Run one command. One that is missing or silent for a minute has failed, no more.

    It inherits the blocked signals: SLURM sends SIGTERM to every process of a job that it ends,
    and the command that is to requeue the job must survive it.
    """
    try:
        done = subprocess.run(
            list(argv),
            env={**(os.environ if env is None else env), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(127, "", str(error))
    out, said = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return Answer(done.returncode, out, said.strip())


class Allocation:
    def __init__(self, env: Mapping[str, str]) -> None:
        self.number = env.get("SLURM_JOB_ID", "")
        self.job_id = self.number
        """As the client calls it, and every question to SLURM: the last element of an array has
        the array's own number, by which SLURM would take all of them."""
        if task := env.get("SLURM_ARRAY_TASK_ID"):
            self.job_id = f"{env.get('SLURM_ARRAY_JOB_ID')}_{task}"
        self.restarts = int(env.get("SLURM_RESTART_COUNT") or 0)
        self.name = env.get("SLURMD_NODENAME", "")
        """The batch host."""
        self._nodelist = env.get("SLURM_JOB_NODELIST", "")

    def nodes(self) -> list[str]:
        """All nodes of the job, in SLURM's order, dead ones included."""
        return expand(self._nodelist)

    def down(self, nodes: Sequence[str]) -> set[str]:
        """Those that SLURM knows to be dead, or that do not answer it."""
        if not nodes:
            return set()
        rows = ask(["sinfo", "-h", "-N", f"--nodes={','.join(nodes)}", "-o", "%N|%T"]).out.split()
        states = dict(row.partition("|")[::2] for row in rows)
        return {name for name, state in states.items() if name in nodes and _is_gone(state)}

    def facts(self) -> dict[str, str]:
        """scontrol's own `Key=Value` words on the job; empty where it does not answer."""
        words = ask(["scontrol", "show", "job", "-o", self.job_id]).out.split()
        pairs = (word.partition("=") for word in words)
        return {name: value for name, sign, value in pairs if sign}

    def kill_wait(self) -> float | None:
        """Seconds between SLURM's SIGTERM and SIGKILL, as configured."""
        match = re.search(r"^KillWait\s*=\s*(\d+)", ask(["scontrol", "show", "config"]).out, re.M)
        return float(match[1]) if match else None

    def requeue(self) -> str | None:
        """Empty where SLURM has taken the job back into the queue, else what it said; None where it
        does not answer: it may have done it all the same."""
        answer = ask(["scontrol", "requeue", self.job_id])
        if answer.code == 0:
            return ""
        facts = self.facts()
        if self.is_requeued(facts):
            return ""  # SLURM may have been faster: it requeues what a dead node has ended
        silent = not facts or is_silence(answer.said)
        return None if silent else answer.said or f"scontrol ended with {answer.code}"

    def is_requeued(self, facts: Mapping[str, str]) -> bool:
        """SLURM counts a restart in the moment in which it decides on it."""
        return int(facts.get("Restarts") or 0) > self.restarts

    def refusal(self, script: str, exclude: Sequence[str]) -> str | None:
        """Empty where SLURM would start a job made from this script that avoids these hosts, else
        what it said: it knows what else the job asks for, and which nodes are drained, reserved or
        gone. None where it does not answer. Nothing is submitted."""
        avoid = [f"--exclude={','.join(exclude)}"] if exclude else []
        answer = self._sbatch("--test-only", *avoid, script)
        if answer.code == 0:
            return ""
        said = " ".join(answer.said.split())
        return None if is_silence(said) else said or f"sbatch ended with {answer.code}"

    def alike(self) -> set[str]:
        """All nodes in service of the job's partition that are built as the job's own. Empty where
        it may have only some of them, or where SLURM does not answer."""
        facts = self.facts()
        if facts.get("ReqNodeList") != "(null)" or facts.get("Reservation", "(null)") != "(null)":
            return set()
        which = ["-h", "--all", "-N", f"--partition={facts.get('Partition', '')}"]
        rows = ask(["sinfo", *which, "-o", "%N|%T|%c|%m|%G|%f"]).out.splitlines()
        fields = [row.split("|") for row in rows if row.count("|") == 5]
        nodes = {name: (state, built) for name, state, *built in fields}
        kinds = [nodes[name][1] for name in self.nodes() if name in nodes]
        return {
            name
            for name, (state, built) in nodes.items()
            if built in kinds and _SERVES.fullmatch(state)
        }

    def excluded(self) -> list[str] | None:
        """The hosts that the job avoids; None where SLURM does not say."""
        known = self.facts().get("ExcNodeList")
        return None if known is None else expand(known.replace("(null)", ""))

    def exclude(self, hosts: Sequence[str]) -> str:
        """Keep the job, which is in the queue, away from these nodes and no others."""
        argv = ["scontrol", "update", f"JobId={self.job_id}"]
        answer = ask([*argv, f"ExcNodeList={','.join(hosts)}"])
        return "" if answer.code == 0 else answer.said

    def steps(self) -> list[str] | None:
        """What SLURM takes to run of this job besides its batch script, as `17.0`; None where it
        does not answer."""
        answer = ask(["squeue", "-h", "-s", "-j", self.job_id, "-o", "%i"])
        if answer.code != 0:
            return None
        return [row for row in answer.out.split() if row.rpartition(".")[2].isdigit()]

    def signal_steps(self, steps: Sequence[str], name: str) -> None:
        """To every process of all of them: `TERM`, or `KILL`, which ends the steps too."""
        for step in steps:
            ask(["scancel", f"--signal={name}", step])

    def cancel(self, job_id: str) -> None:
        """Another job of the run."""
        ask(["scancel", job_id])

    def successor(self, run_id: str) -> str | None:
        """The job that was submitted in place of this one, also one that has ended; "" where there
        is none, None where SLURM does not say."""
        which = ["--all", "--states=all", "--me", f"--name={run_id}"]
        answer = ask(["squeue", "-h", *which, "-o", "%A"])
        if answer.code != 0:
            return None
        ids = [int(one) for one in answer.out.split() if one.isdigit()]
        later = [one for one in ids if one > int(self.number)]
        return str(max(later)) if later else ""

    def submit_again(self, script: str, exclude: Sequence[str] | None) -> tuple[str, str]:
        """(job id, what sbatch said) of a new job made from the same script, which avoids these
        hosts and no others; None: those that the script names."""
        # The option would take the place of what the script excludes.
        avoid = [] if exclude is None else [f"--exclude={','.join(exclude)}"]
        answer = self._sbatch("--parsable", *avoid, script)
        match = re.search(r"^(\d+)(?:;\S+)?$", answer.out, re.M)
        return (match[1] if match else ""), answer.said

    def _sbatch(self, *argv: str) -> Answer:
        """Without the options of this job, which it would take from its environment."""
        foreign = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "PTX_")
        env = {
            name: value
            for name, value in os.environ.items()
            if name == "SLURM_CONF" or not name.startswith(foreign)
        }
        return ask(["sbatch", *argv], env)


def is_silence(said: str) -> bool:
    """Whether a command failed because nobody answered it: what it asked for may yet be done."""
    return _SILENCE.search(said) is not None


def _is_gone(state: str) -> bool:
    """By sinfo's word; `*` is a node that does not answer."""
    return state.endswith("*") or state.startswith(_GONE)


def seconds(text: str) -> float | None:
    """`1-12:00:00`, `12:30:00`, `05:00`; None for UNLIMITED and the like."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, secs = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + secs)


def time_left(facts: Mapping[str, str]) -> float | None:
    """Seconds until the job's time limit, None where there is none."""
    limit, ran = seconds(facts.get("TimeLimit", "")), seconds(facts.get("RunTime", ""))
    return None if limit is None or ran is None else limit - ran
