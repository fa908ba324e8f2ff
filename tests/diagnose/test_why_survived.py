"""An exception that a rank logged and outlived is no cause of its end; one that ended it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.made_logs import leave, node_ended
from support.made_runs import MadeRun

from orchestrator.agent.exit_record import find_exception
from orchestrator.diagnose.verdict import Verdict
from orchestrator.diagnose.why import why
from orchestrator.runs.observe import observe_one

SPACE = """\
ERROR:root:step 7 failed, trying again
Traceback (most recent call last):
  File "/home/ann/train.py", line 7, in save
    raise OSError(28, 'No space left on device')
OSError: [Errno 28] No space left on device"""
MEMORY = SPACE.replace(
    "OSError: [Errno 28] No space left on device",
    "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB",
)
STEPS = [(20.0 + n, f"step {8 + n} loss 2.{n}") for n in range(30)]


def told(
    folder: Path, said: list[tuple[float, str]], code: int, *, t: float = 59, end: str = "failed"
) -> Verdict:
    """Of a run whose rank 1 `said` this, second and text each, and ended with `code`."""
    run = MadeRun(folder, "late-aaaaaa").submitted().started()
    errors = "\n".join(text for _, text in said)
    for moment, text in said:
        leave(run, 1, text, t=moment)
    last = errors.split("\n")[-20:]
    leave(run, 1, code=code, t=t, exception=find_exception(errors), last_lines=last)
    leave(run, 0, "step 37", code=-15, t=t + 1)
    node_ended(run, {0: -15, 1: code}, first=1)
    run.over(end, message="")
    return why(observe_one(run.layout, ask=False)[0])


def test_what_a_rank_logged_before_it_went_on_is_said_and_not_blamed(tmp_path: Path) -> None:
    verdict = told(tmp_path, [(10, SPACE), *STEPS], 3, t=50)
    assert (verdict.state, verdict.rule, verdict.cause) == ("failed", "", "")
    assert verdict.sentence == (
        "Rank 1 on node 0 (n0) exited with 3 and printed nothing that explains it; "
        "30 lines earlier it logged OSError: [Errno 28] No space left on device."
    )
    assert [one.text for one in verdict.evidence] == [STEPS[-1][1], SPACE.split("\n")[-1]]
    assert verdict.evidence[1].line == 5
    assert verdict.first is not None and verdict.first.exception == ""


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([(58, SPACE)], 1),
        ([(58, SPACE)], 3),
        ([(58, SPACE), (58.5, "shutting down")], 3),
        ([(58, SPACE), (58.5, "saving step 7 before leaving")], 3),
        ([(20, SPACE), (58, "[rank1]:[W1121 ProcessGroupNCCL.cpp:1496] not destroyed")], 1),
        # What stdout held in its buffer comes out at the end, after the traceback.
        ([(57, SPACE), *((58.9, text) for _, text in STEPS)], 1),
        ([(30, SPACE), *((58.9, text) for _, text in STEPS)], -6),
    ],
    ids=[
        "uncaught",
        "sys-exit",
        "a-word-on-the-way-out",
        "a-step-named",
        "slow-to-leave",
        "buffered",
        "aborted",
    ],
)
def test_what_ended_it_is_the_cause(
    said: list[tuple[float, str]], code: int, tmp_path: Path
) -> None:
    assert told(tmp_path, said, code).rule == "no-space"


@pytest.mark.parametrize("code", [1, -9, -11, 137])
def test_however_it_ended_steps_after_it_show_that_it_was_outlived(
    code: int, tmp_path: Path
) -> None:
    verdict = told(tmp_path, [(10, SPACE), *STEPS], code, t=50)
    assert verdict.rule != "no-space"
    assert "space" not in verdict.cause


@pytest.mark.parametrize(
    "line",
    [
        "step 40 loss 2.1",
        "[2026-11-21 00:01:02] INFO Epoch 3/10",
        "{'loss': 2.31, 'grad_norm': 0.4, 'epoch': 0.1}",
        " 12%|#2        | 60/500 [00:12<01:30,  4.89it/s]",
        "global_step=400",
    ],
)
def test_progress_is_known_in_the_forms_that_trainers_print(line: str, tmp_path: Path) -> None:
    said = [(55.0, SPACE), (56.5, line)]
    assert told(tmp_path, said, 3).rule == ""


def test_one_that_much_was_printed_after_is_outlived_too(tmp_path: Path) -> None:
    """It stands before the part of the log that is read."""
    line = "step 8 " + "x" * 80
    steps = [(20.0 + n, "\n".join([line] * 100)) for n in range(20)]
    verdict = told(tmp_path, [(10, SPACE), *steps], 3, t=50)
    assert verdict.rule == ""
    assert "; more than " in verdict.sentence


def test_words_of_long_before_are_not_told_as_the_reason(tmp_path: Path) -> None:
    verdict = told(tmp_path, [(10, "saving to /data")], 3, t=50)
    assert verdict.sentence == (
        "Rank 1 on node 0 (n0) exited with 3 and printed nothing in its last 10 s; "
        "the line before that is: saving to /data."
    )
    (tmp_path / "now").mkdir()
    verdict = told(tmp_path / "now", [(49, "giving up")], 3, t=50)
    assert verdict.sentence == "Rank 1 on node 0 (n0) exited with 3: giving up."


@pytest.mark.parametrize(
    "line",
    [
        "step 40 loss 2.1",
        "[2026-11-21 00:01:02] INFO Epoch 3/10",
        "{'loss': 2.31, 'grad_norm': 0.4, 'epoch': 0.1}",
        " 12%|#2        | 60/500 [00:12<01:30,  4.89it/s]",
        "epoch 0 | loss: 1.000 | error: 0.00",
    ],
)
def test_a_report_of_progress_is_not_told_as_the_reason(line: str, tmp_path: Path) -> None:
    verdict = told(tmp_path, [(49, line)], 3, t=50)
    assert verdict.sentence.startswith(
        "Rank 1 on node 0 (n0) exited with 3 and printed nothing that explains it; "
        "its last line is: "
    )


@pytest.mark.parametrize(
    "line",
    [
        "step 7 failed: disk 3",
        "giving up at step 40",
        "loss is nan at step 40",
        "step 40 loss nan",
        "batch 7 of shard 3 has no labels",
        "epoch 3: no data left",
    ],
)
def test_a_sentence_that_names_a_step_may_be_the_reason(line: str, tmp_path: Path) -> None:
    verdict = told(tmp_path, [(49, line)], 3, t=50)
    assert verdict.sentence == f"Rank 1 on node 0 (n0) exited with 3: {line}."


@pytest.mark.parametrize(
    ("line", "mark", "told"),
    [
        ("Loaded 1200 samples from the cache", "o", False),
        ("early_exit3 begins", "o", False),
        ("exiting", "o", True),
        ("INFO:root:Loaded 1200 samples from the cache", "e", False),
        ("Loaded 1200 samples from the cache", "e", True),  # sys.exit("text") looks the same
        ("ERROR:root:the cache of 1200 samples", "o", True),
        ("1200 samples cannot be read from the cache", "o", True),
        ("INFO:root:the label file is missing", "o", True),
        ("usage: train.py [-h] --data DATA", "o", True),
    ],
)
def test_the_last_thing_printed_is_the_reason_only_where_it_reads_like_one(
    line: str, mark: str, told: bool, tmp_path: Path
) -> None:
    run = MadeRun(tmp_path, "left-aaaaaa").submitted().started()
    leave(run, 0, "step 37")
    leave(run, 1, line, code=3, mark=mark)
    node_ended(run, {0: 0, 1: 3}, first=1)
    run.over("failed", message="")
    verdict = why(observe_one(run.layout, ask=False)[0])
    between = ": " if told else " and printed nothing that explains it; its last line is: "
    assert verdict.sentence == f"Rank 1 on node 0 (n0) exited with 3{between}{line}."
    assert verdict.evidence[0].text == line


def test_memory_that_ran_out_and_was_survived_is_not_the_class(tmp_path: Path) -> None:
    """The agent, which sees no log, takes the exception in the record for the end."""
    verdict = told(tmp_path, [(10, MEMORY), *STEPS], 3, t=50, end="out-of-memory")
    assert (verdict.state, verdict.rule) == ("failed", "")
    (tmp_path / "end").mkdir()
    verdict = told(tmp_path / "end", [(49, MEMORY)], 1, t=50, end="out-of-memory")
    assert (verdict.state, verdict.rule) == ("out-of-memory", "cuda-out-of-memory")


def test_what_a_destructor_raised_as_python_left_is_neither_blamed_nor_shown(
    tmp_path: Path,
) -> None:
    ignored = """\
Exception ignored in: <function Client.__del__ at 0x7f2e>
Traceback (most recent call last):
  File "/home/ann/client.py", line 3, in __del__
ImportError: sys.meta_path is None, Python is likely shutting down"""
    verdict = told(tmp_path, [(58, "giving up: no answer"), (58.5, ignored)], 1)
    assert (verdict.rule, verdict.cause) == ("", "")
    assert "ImportError" not in verdict.sentence
    assert [(one.line, one.text) for one in verdict.evidence] == [(1, "giving up: no answer")]
