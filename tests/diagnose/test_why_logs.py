"""What is read of the logs, whatever they hold and however long they are."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from support.made_logs import leave, node_ended
from support.made_runs import MadeRun
from support.made_verdicts import CLOSED, TERM, over, traceback, verdict


def test_the_evidence_names_the_line_of_a_long_log(make: MadeRun) -> None:
    filler = "\n".join(f"step {i} loss 2.0 {'x' * 80}" for i in range(20_000))
    leave(make, 1, f"{filler}\n{traceback('ValueError: bad batch')}", code=1)
    told = over(node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1))
    log = make.layout.rank_log(0, 0, 1).read_text().split("\n")
    found = told.evidence[0]
    assert found.line is not None
    assert log[found.line - 1].endswith("ValueError: bad batch")
    assert (told.evidence[1].path, told.evidence[1].line) == ("/home/ann/train.py", 30)


def test_a_traceback_behind_a_progress_bar_is_found_with_its_place(tmp_path: Path) -> None:
    run = MadeRun(tmp_path, "bar-aaaaaa").supervised().started()
    bar = " 40%|████      | 4/10 [00:00<00:00, 8.23it/s]"
    leave(run, 1, bar + traceback("ValueError: bad batch").lstrip(), code=1)
    node_ended(run, {0: TERM, 1: 1}, first=1)
    run.over("failed")
    told = verdict(run)
    assert told.first is not None and told.first.rank == 1
    assert "ValueError: bad batch" in told.sentence
    assert [(row.path, row.line) for row in told.evidence][1:] == [("/home/ann/train.py", 30)]


def test_damaged_files_end_in_less_evidence_and_never_in_a_crash(make: MadeRun) -> None:
    log = leave(make, 1, traceback("ValueError: bad"), code=1)
    node_ended(make, {0: 1, 1: 1, 2: 1, 3: 1}, first=1)
    make.over().event(62, "supervisor_ended", rc=1)
    record = make.layout.exit_record(0, 0, 1)
    for damage in (b"", b"{", b"\x00\xff\xfe", json.dumps({"v": 1, "exception": 3}).encode()):
        record.write_bytes(damage)
        assert verdict(make).kind == "failed"
        log.write_bytes(damage)
        assert verdict(make).kind == "failed"
    log.unlink()
    log.mkdir()
    assert verdict(make).kind == "failed"


def test_control_sequences_of_a_rank_do_not_reach_the_verdict(make: MadeRun) -> None:
    leave(make, 1, traceback("ValueError: \x1b]0;owned\x07bad\x1b[2J"), code=1)
    told = over(node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1))
    assert "\x1b" not in told.sentence
    assert all("\x1b" not in line.text for line in told.evidence)


def test_many_ranks_with_long_logs_cost_their_ends_only(tmp_path: Path) -> None:
    """64 logs of 10 MB each, sparse on disk: what is read is counted, not timed."""
    run = MadeRun(tmp_path, "wide-aaaaaa", nodes=8, procs=8).submitted()
    codes: dict[int, int] = {}
    for node in range(8):
        run.started(node)
        for rank in range(node * 8, node * 8 + 8):
            bad = rank == 37
            log = run.layout.rank_log(0, node, rank)
            with log.open("wb") as file:
                file.truncate(10 * 1024 * 1024)
                file.seek(0, 2)
                file.write(b"\n")
            text = traceback("ValueError: the one") if bad else traceback(CLOSED)
            leave(run, rank, text, code=1, node=node, t=59 if bad else 40 + rank / 100)
            codes[rank] = 1
        own = {rank: codes[rank] for rank in range(node * 8, node * 8 + 8)}
        node_ended(run, own, node=node, first=node * 8)
    run.over().event(62, "supervisor_ended", rc=1)
    before = _bytes_read()
    told = verdict(run)
    read = _bytes_read() - before
    assert told.first is not None
    assert told.first.rank == 37
    # One log is counted through for its line number; of the others at most their ends are read.
    assert read < 10 * 1024 * 1024 * 2 + 64 * 64 * 1024


def _bytes_read() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def test_the_newest_part_of_a_log_is_read_and_a_compressed_one_too(make: MadeRun) -> None:
    log = leave(make, 1, traceback("ModuleNotFoundError: No module named 'apex'"), code=1)
    newest = log.with_name("rank-00001.0002.log.gz")
    newest.write_bytes(gzip.compress(log.read_bytes()))
    log.write_text("")
    told = over(node_ended(make, {0: TERM, 1: 1, 2: TERM, 3: TERM}, first=1))
    assert told.rule == "module-missing"
    assert told.evidence[0].path.endswith("rank-00001.0002.log.gz")
    assert told.evidence[0].line == 4
