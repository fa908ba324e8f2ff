"""Levels as people's loggers print them, tracebacks, the first error, and lines told once."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.logs.dedupe import MOST, Dedupe, form
from orchestrator.logs.first_error import first_error
from orchestrator.logs.level import Level, Levels, level_of
from orchestrator.logs.line import TEXT, Entry, compose, stamp_of
from orchestrator.logs.select import RankLog

START = 1_795_000_000
LINES = {
    Level.DEBUG: [
        "DEBUG:urllib3:Starting new HTTPS connection",
        "2026-11-21 10:00:00,123 - x - DEBUG - y",
    ],
    Level.INFO: [
        "INFO:root:started",
        "2026-11-21 10:00:00.123 | INFO     | app:main:12 - started",
        "[2026-11-21 10:00:00,123] [INFO] [logging.py:96:log_dist] [Rank 0] step=10",
        "I1121 10:00:00.123456 4242 trainer.cc:33] go",
        "node1:4242:4242 [0] NCCL INFO Bootstrap : Using eth0",
        '{"time": "x", "level": "info", "message": "hi"}',
    ],
    Level.WARNING: [
        "WARNING:root:slow",
        "2026-11-21 10:00:00,123 WARNING trainer: slow",
        "[WARNING|trainer.py:812] 2026-11-21 10:00:00,123 >> slow",
        "/opt/x/torch/nn.py:33: UserWarning: deprecated",
        "[rank3]:[W1121 10:00:00.123456789 socket.cpp:752] The client socket has timed out",
        "W1121 10:00:00.123000 4242 torch/distributed/run.py:792] OMP_NUM_THREADS",
        "node1:4242:4242 [0] NCCL WARN Connect to 10.0.0.1 failed",
        "level=warn msg=slow",
        "warning: linker is old",
    ],
    Level.ERROR: [
        "ERROR:root:broken",
        "2026-11-21T10:00:00Z ERROR worker: broken",
        "[rank0]:[E1121 10:00:00.123456 ProcessGroupNCCL.cpp:616] [Rank 0] Watchdog caught",
        "[E ProcessGroupNCCL.cpp:828] [Rank 3] Watchdog caught collective operation timeout",
        "CRITICAL:root:out of cheese",
        "RuntimeError: CUDA error: device-side assert triggered",
        "torch.OutOfMemoryError: CUDA out of memory.",
        "[rank1]: KeyError: 'x'",
        "Fatal Python error: Segmentation fault",
        "terminate called after throwing an instance of 'c10::Error'",
        "srun: error: node1: task 0: Killed",
        "slurmstepd: error: Detected 1 oom_kill event",
        "Error: no such file",
        "error: 2 ranks failed",
        "error: 1, 2 and 3 failed",
        "error: 2 files: a, b",
        "error: 12% of the samples are bad",
        "Error: 404 not found",
        "ERROR: 5",
        "step 3 | ERROR: 5",
        '{"severity":"ERROR","msg":"x"}',
    ],
    None: [
        "step 100 loss 2.31",
        "error rate 0.02, 3 warnings so far",
        "the INFO desk is closed",
        "validation error 0.31",
        "epoch 0 | loss: 1.000 | error: 0.00",
        "epoch 0 | error: 0.02 | loss: 1.000",
        "top1 error (error: 0.31)",
        "error: 0.3",
        "Error: 1.2e-3, loss: 0.4",
        "error: 12.5% acc: 87.5%",
        "error: nan | loss: 2",
        "[error: -0.5]",
        "| |" + " |" * 60,
        "no ERROR was seen in this epoch",
        "",
    ],
}


@pytest.mark.parametrize(("level", "text"), [(k, v) for k, lines in LINES.items() for v in lines])
def test_a_line_has_the_level_that_its_logger_gave_it(level: Level | None, text: str) -> None:
    assert level_of(text) == level


def test_a_level_is_typed_in_any_case_and_others_are_refused() -> None:
    assert Level.of("warn") == Level.of("WARNING") == Level.WARNING
    with pytest.raises(UserError, match="--level 'loud'"):
        Level.of("loud")


def entry(text: str, source: int = 0, mark: str = "e", at: float = 0) -> Entry:
    stamp = stamp_of(START + at)
    return stamp, source, compose(stamp, mark, text)


TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 3, in f
    x()
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 5, in <module>
    f()
RuntimeError: it is
of two lines""".split("\n")  # noqa: SIM905 - as it is printed


def test_a_traceback_is_an_error_from_its_first_line_to_its_last() -> None:
    levels = Levels()
    before = levels.of(entry("step 1", mark="e"))
    # Another rank's and the other stream's lines between do not end it.
    found = []
    for line in TRACEBACK:
        found.append(levels.of(entry(line)))
        assert levels.of(entry("step 2", source=1)) == Level.INFO
        assert levels.of(entry("step 2", mark="o")) == Level.INFO
    after = levels.of(entry("step 3", at=1))
    assert (before, after) == (Level.INFO, Level.INFO)
    assert found == [Level.ERROR] * len(TRACEBACK)


def test_a_traceback_behind_a_bar_is_an_error_as_a_whole() -> None:
    levels = Levels()
    lines = ["step 19 of 40 " + TRACEBACK[0], *TRACEBACK[1:4]]
    assert [levels.of(entry(line)) for line in lines] == [Level.ERROR] * 4
    assert levels.of(entry("step 20", at=1)) == Level.INFO


CRASH = """Fatal Python error: Segmentation fault

Thread 0x00007f0ae1000000 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait
  <no Python frame>

Current thread 0x00007f0ae2bf3b80 (most recent call first):
  File "/home/ann/train.py", line 3 in inner
  File "/home/ann/train.py", line 4 in <module>

Extension modules: numpy._core._multiarray_umath, torch._C (total: 2)""".split("\n")  # noqa: SIM905


def test_the_stacks_of_a_crash_are_an_error_to_their_last_line() -> None:
    levels = Levels()
    lines = ["step 1", *CRASH, "step 2", "  indented", "", "step 3"]
    found = [levels.of(entry(line)) for line in lines]
    assert found == [Level.INFO, *[Level.ERROR] * len(CRASH), *[Level.INFO] * 4]


def test_the_first_error_that_is_a_crash_is_shown_with_its_stacks() -> None:
    lines = [entry("step 1"), *map(entry, CRASH), entry("step 2")]
    shown = [e for batch in first_error([lines]) for e in batch]
    assert [e[2][TEXT:] for e in shown] == CRASH


def test_an_indented_line_belongs_to_the_message_before_it() -> None:
    levels = Levels()
    lines = ["WARNING:root:these do not match:", "  a", "  b", "step 1", "  c"]
    assert [levels.of(entry(line)).name for line in lines] == [
        "WARNING", "WARNING", "WARNING", "INFO", "INFO",
    ]  # fmt: skip


def test_the_first_error_is_one_ranks_and_whole_and_no_more_is_read() -> None:
    read = []

    def batches() -> list[list[Entry]]:
        yield [entry("step 1", source) for source in range(3)]  # type: ignore[misc]
        mixed = []
        for line in TRACEBACK:
            mixed += [entry(line, 2, at=5), entry(line, 1, at=5.0)]
        yield mixed
        yield [entry("cleaning up", 2, at=6)]
        read.append("too far")
        yield []

    shown = [e for batch in first_error(batches()) for e in batch]
    assert [e[2][TEXT:] for e in shown] == TRACEBACK
    assert {e[1] for e in shown} == {2} and not read


def logs(count: int) -> list[RankLog]:
    return [RankLog(0, r // 8, r, Path(f"/x/rank-{r:05d}.log")) for r in range(count)]


def test_what_many_ranks_print_is_told_once_numbers_notwithstanding() -> None:
    dedupe = Dedupe(logs(63))
    lines = [
        entry(
            f"rank {r} at 0x7f{r:06x} on 10.0.0.{r}:2950{r % 9} has loss {r / 7:.3e}", r, at=r / 99
        )
        for r in range(63)
    ]
    folded = dedupe.feed(lines) + dedupe.finish()
    assert [(one.entry, one.ranks) for one in folded] == [(lines[0], tuple(range(63)))]


def test_the_steps_of_each_rank_stay_apart_and_meet_those_of_the_others() -> None:
    dedupe = Dedupe(logs(3))
    lines = [entry(f"step {s} loss {r}", r, at=s / 10) for s in range(4) for r in range(3)]
    folded = dedupe.feed(lines) + dedupe.finish()
    assert [one.ranks for one in folded] == [(0, 1, 2)] * 4
    assert [one.entry[2][TEXT:] for one in folded] == [f"step {s} loss 0" for s in range(4)]


def test_lines_further_apart_than_the_window_are_not_the_same() -> None:
    dedupe = Dedupe(logs(2))
    first = dedupe.feed([entry("hello 1", 0)])
    second = dedupe.feed([entry("hello 2", 1, at=6)])
    assert (first, [one.ranks for one in second + dedupe.finish()]) == ([], [(0,), (1,)])


def test_what_waits_to_be_told_is_bounded_and_in_order() -> None:
    dedupe = Dedupe(logs(1))
    names = [
        f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{'x' * (i // 676)}" for i in range(2 * MOST)
    ]
    folded = dedupe.feed([entry(name) for name in names])
    assert len(folded) == MOST
    folded += dedupe.finish()
    assert [one.entry[2][TEXT:] for one in folded] == names


def test_words_that_differ_are_not_the_same() -> None:
    assert form("loss nan") != form("loss 3.1")
    assert form("node12 gone") == form("node7 gone")
    assert form("id deadbeef01 3.1e-4") == form("id cafe12345 2")
