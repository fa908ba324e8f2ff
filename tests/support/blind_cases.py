"""Run folders of the blind cases in tests/diagnose/blind, as agent, shim and supervisor leave them.

A case says what its ranks printed and how they ended; node_ended and attempt_ended are made of
that by the agent's own functions. Format: tests/diagnose/blind/README.md.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.made_runs import MadeRun

from orchestrator.agent.classes import Evidence, Past, Policy, judge
from orchestrator.agent.conclusion import Seen, conclude
from orchestrator.agent.exit_record import find_exception
from orchestrator.agent.ranks import code_of, first_failure, read_records
from orchestrator.logs.line import stamp_of

CASES = Path(__file__).parents[1] / "diagnose" / "blind"
CREATED = 1_795_234_000.0
_NOISE = "noise"
_GAP = 2e-5
"""Seconds between two lines that were printed together."""
_HEAD = re.compile(r"@(?P<t>[0-9.]+) (?P<stream>[oeOE])(?: (?P<text>.*))?$")
_PLACE = re.compile(r"\$(RANK|LOCAL|NODE|HOST|WORLD|PID|GLOG|ISO|DATE|CR)")


@dataclass(frozen=True)
class Case:
    name: str
    data: Mapping[str, Any]

    @property
    def expected(self) -> Mapping[str, Any]:
        """`healthy`, or rank, class (one, or a list of fair ones), kind and words."""
        found: Mapping[str, Any] = self.data["expected"]
        return found

    @property
    def healthy(self) -> bool:
        return bool(self.expected.get("healthy"))


@dataclass
class _Rank:
    rank: int
    node: int
    local: int
    lines: list[tuple[float, str, str]] = field(default_factory=list)
    end: dict[str, Any] = field(default_factory=dict)


def cases(folder: Path = CASES) -> list[Case]:
    files = sorted(path for path in folder.rglob("*.toml") if path.stem != _NOISE)
    return [Case(path.stem, tomllib.loads(path.read_text())) for path in files]


def build(case: Case, root: Path) -> Path:
    """Make the run folder of a case below `root`; its path."""
    return _Builder(case, root).build()


class _Builder:
    def __init__(self, case: Case, root: Path) -> None:
        data = case.data
        self._data = data
        self._hosts: list[str] = data["nodes"]
        self._procs = int(data["procs"])
        self._world = len(self._hosts) * self._procs
        self._clock: list[float] = data.get("clock", [0.0] * len(self._hosts))
        self._scheduler = str(data.get("scheduler", "slurm"))
        self._run = MadeRun(
            root,
            f"{case.name}-0b11d0",
            nodes=len(self._hosts),
            procs=self._procs,
            scheduler=self._scheduler,
            created=CREATED,
        )
        self._noise: Mapping[str, str] = tomllib.loads((CASES / f"{_NOISE}.toml").read_text())
        self._ranks = [
            _Rank(rank, rank // self._procs, rank % self._procs) for rank in range(self._world)
        ]

    def build(self) -> Path:
        for group in self._data.get("group", ()):
            self._take(group)
        run = self._run
        run.event(0, "intent", scheduler=self._scheduler).event(0.4, "submitted", job_id="418207")
        begun = {"job_id": "418207", "attempt": 0, "host": self._hosts[0]}
        if self._scheduler == "slurm":
            begun |= {"nodes": self._hosts}
        run.event(1.2 + self._clock[0], "job_started", **begun)
        ended: dict[int, Mapping[str, Any]] = {}
        last = 0.0
        for node in range(len(self._hosts)):
            at, event = self._make_node(node)
            last = max(last, at)
            if event is not None:
                ended[node] = event
        self._judge(ended, last + 1.5)
        log = self._data.get("scheduler_log")
        if log:
            text = _filled(log, {"HOST": self._hosts[0]}, CREATED + last)
            run.layout.scheduler_log.write_text(text)
        return run.layout.root

    def _take(self, group: Mapping[str, Any]) -> None:
        """Lines and end of the ranks that a group names; later groups have the last word."""
        chosen = group["ranks"]
        numbers = range(self._world) if chosen == "all" else chosen
        spread = float(group.get("spread", 0.011))
        for place, number in enumerate(numbers):
            rank = self._ranks[number]
            for text, shift in self._texts(group):
                for t, stream, line in _lines(text):
                    rank.lines.append((t + shift + place * spread, stream, line))
            end = {key: group[key] for key in ("code", "signal", "ended", "lost") if key in group}
            if "ended" in end:
                end["ended"] = float(end["ended"]) + place * spread
            rank.end |= end
            if "orphaned_by" in group:
                rank.end["orphaned_by"] = group["orphaned_by"]

    def _texts(self, group: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        for named in group.get("noise", ()):
            name, _, shift = str(named).partition("@")
            yield self._noise[name], float(shift or 0)
        yield group.get("log", ""), 0.0

    def _make_node(self, node: int) -> tuple[float, Mapping[str, Any] | None]:
        """One node's files and events; when it ended, and its node_ended."""
        said: Mapping[str, Any] = self._data.get("node", {}).get(str(node), {})
        clock = self._clock[node]
        host = self._hosts[node]
        folder = self._run.layout.node(0, node)
        folder.mkdir(parents=True)
        self._run.event(2 + clock, "node_started", attempt=0, node=node, host=host, pid=3100 + node)
        ranks = [rank for rank in self._ranks if rank.node == node] if _launched(said) else []
        for rank in ranks:
            self._leave(rank, folder)
        last = max((float(rank.end.get("ended", 0)) for rank in ranks), default=0.0)
        last = float(said.get("ended", last + 0.6))
        heartbeat = json.dumps({"t": CREATED + last // 30 * 30 + clock, "seq": int(last // 30)})
        (folder / "heartbeat").write_text(f"{heartbeat:<63}\n")
        if _launched(said):
            (folder / "launching").touch()
        self._write_launcher_log(folder, node, said, clock, last)
        if said.get("signal"):
            self._run.event(float(said["signal"]) + clock, "signal", name="SIGUSR2")
        if said.get("silent"):
            return last, None
        status = said.get("launcher_code", int(any(map(_failed, ranks))))
        ended_at = said.get("ended_at")
        seen = Seen(
            launched=_launched(said),
            launcher_status=None if status is None else int(status) << 8,
            ended_at=None if ended_at is None else CREATED + float(ended_at) + clock,
            stop_signal=said.get("stop_signal"),
            asked=said.get("asked"),
            hung=bool(said.get("hung")),
        )
        ending = conclude(folder, self._procs, seen)
        event = {
            "attempt": 0,
            "node": node,
            "rc": 0 if ending.complete or ending.reason == "stopped" else 1,
            "reason": ending.reason,
            "ranks": {str(n): code_of(ending.records[n]) for n in sorted(ending.records)},
            "first_failure": ending.first,
            "stepped": bool(said.get("stepped", self._data.get("stepped", False))),
            "message": ending.message or said.get("message"),
        }
        self._run.event(last + clock, "node_ended", **event)
        return last, event

    def _leave(self, rank: _Rank, folder: Path) -> None:
        """What the shim leaves: the log, and the exit record unless it was killed as well."""
        if not rank.lines and not rank.end:
            return  # the launcher never came to start it
        clock = self._clock[rank.node]
        names = {
            "RANK": str(rank.rank),
            "LOCAL": str(rank.local),
            "NODE": str(rank.node),
            "HOST": self._hosts[rank.node],
            "WORLD": str(self._world),
            "PID": str(_pid(rank)),
        }
        rank.lines.sort(key=lambda line: line[0])
        lines = [
            (CREATED + t + clock, stream, _filled(text, names, CREATED + t + clock))
            for t, stream, text in rank.lines
        ]
        log = folder / f"rank-{rank.rank:05d}.log"
        with log.open("w", newline="") as file:
            file.writelines(f"{stamp_of(t)} {stream} {text}\n" for t, stream, text in lines)
        if rank.end.get("lost"):
            return
        signal = rank.end.get("signal")
        code = None if signal is not None else int(rank.end.get("code", 0))
        stderr = "".join(
            text + "\n" * stream.islower() for _, stream, text in lines if stream in "eE"
        )
        record = {
            "v": 1,
            "run_id": self._run.layout.run_id,
            "attempt": 0,
            "node": rank.node,
            "host": self._hosts[rank.node],
            "rank": rank.rank,
            "local_rank": rank.local,
            "world_size": self._world,
            "pid": _pid(rank),
            "started": CREATED + 2.4 + clock,
            "ended": CREATED + float(rank.end["ended"]) + clock,
            "exit_code": code,
            "signal": signal,
            "exception": find_exception(stderr) if signal or code else None,
            "last_lines": [text[-2000:] for _, _, text in lines[-20:]],
            "device": None,
            "max_rss_bytes": 5 << 30,
            "log_bytes": log.stat().st_size,
            "lost_bytes": 0,
            "orphaned_by": rank.end.get("orphaned_by"),
        }
        path = folder / f"rank-{rank.rank:05d}.exit.json"
        path.write_text(json.dumps(record, ensure_ascii=False) + "\n")

    def _write_launcher_log(
        self, folder: Path, node: int, said: Mapping[str, Any], clock: float, last: float
    ) -> None:
        now = CREATED + last + clock
        names = {"NODE": str(node), "HOST": self._hosts[node], "PID": str(3200 + node)}
        text = str(said.get("launcher_log", ""))
        if not text:
            text = "".join(f"{line}\n" for line in self._torchrun(folder))
        if said.get("message"):
            text += "".join(f"ptx: {line}\n" for line in str(said["message"]).splitlines())
        (folder / "launcher.log").write_text(_filled(text, names, now))

    def _torchrun(self, folder: Path) -> Iterator[str]:
        """What torchrun says once a rank has failed: it names the first that it saw."""
        records = read_records(folder)
        first = first_failure(records, None)
        if first is None:
            return
        place = "torch/distributed/elastic/multiprocessing/api.py"
        for record in records.values():
            if code_of(record) == -15:
                pid = record["pid"]
                yield f"W$GLOG $PID {place}:908] Sending process {pid} closing signal SIGTERM"
        record = records[first["rank"]]
        local, pid, code = record["local_rank"], record["pid"], first["code"]
        yield (
            f"E$GLOG $PID {place}:882] failed (exitcode: {code}) local_rank: {local} "
            f"(pid: {pid}) of binary: /usr/bin/python3"
        )
        yield "Traceback (most recent call last):"
        yield '  File "/opt/env/bin/torchrun", line 8, in <module>'
        yield "    sys.exit(main())"
        yield "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: "
        yield "=" * 60
        yield "shim.py FAILED"
        yield "-" * 60
        yield "Root Cause (first observed failure):"
        yield "[0]:"
        yield "  host      : $HOST"
        yield f"  rank      : {first['rank']} (local_rank: {local})"
        yield f"  exitcode  : {code} (pid: {pid})"
        yield "  error_file: <N/A>"
        yield "=" * 60

    def _judge(self, ended: Mapping[int, Mapping[str, Any]], t: float) -> None:
        data = self._data
        evidence = Evidence(
            hosts=self._hosts,
            ended=ended,
            started=len(self._hosts),
            warned=any("signal" in said for said in data.get("node", {}).values()),
            told=data.get("told"),
            down=data.get("down", ()),
            seconds=t,
        )
        verdict = judge(evidence, Past(), Policy(0, (), 10.0))
        self._run.over(verdict.name, t=t + self._clock[0], message=verdict.message)
        if self._scheduler == "slurm":
            word = data.get("job_state", "completed" if verdict.name == "completed" else "failed")
            self._run.event(t + 30, "job_ended", state=word, reason=word.upper(), attempt=0)
        else:
            code = int(verdict.name != "completed")
            self._run.event(t + 0.1 + self._clock[0], "supervisor_ended", rc=code)


def _launched(said: Mapping[str, Any]) -> bool:
    return bool(said.get("launched", True))


def _failed(rank: _Rank) -> bool:
    return bool(rank.end.get("signal") or rank.end.get("code"))


def _pid(rank: _Rank) -> int:
    return 51_200 + 17 * rank.local + 411 * rank.node


def _lines(text: str) -> Iterator[tuple[float, str, str]]:
    """`@12.5 e text` sets time and stream; a line without belongs to the one before it."""
    t, stream = 0.0, "e"
    for line in text.strip("\n").split("\n") if text.strip() else ():
        head = _HEAD.match(line)
        if head is None:
            t += _GAP
            yield t, stream, line
            continue
        t, stream = float(head["t"]), head["stream"]
        if head["text"] is not None:
            yield t, stream, head["text"]


def _filled(text: str, names: Mapping[str, str], t: float) -> str:
    at = datetime.fromtimestamp(t, UTC)
    every: dict[str, str] = {
        "GLOG": f"{at:%m%d %H:%M:%S.%f}",
        "ISO": f"{at:%Y-%m-%d %H:%M:%S},{at.microsecond // 1000:03d}",
        "DATE": f"{at:%Y-%m-%dT%H:%M:%S}",
        "CR": "\r",
        **names,
    }
    return _PLACE.sub(lambda found: every.get(found[1], found[0]), text)


def words_in(words: Sequence[str], text: str) -> bool:
    """Whether a word of the text begins with one of these, whatever its case."""
    return any(re.search(rf"(?<![a-z]){re.escape(word)}", text, re.IGNORECASE) for word in words)
