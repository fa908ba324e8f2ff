"""Metrics as they are read, and the line that shows them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.progress import Style, progress_bar, progress_line, rate, trend
from orchestrator.metrics.tail import MetricsTail, Progress
from orchestrator.runs.layout import RunLayout

NOW = 1_795_000_000.0
HALFWAY = Progress(
    step=200,
    steps=400,
    loss=2.25,
    losses=tuple(5 - i / 50 for i in range(150)),
    tokens_per_s=12_345.6,
    seconds_per_step=0.5,
    reported=NOW,
)
PLAIN = Style(colour=False, unicode=True)


def record(**fields: object) -> str:
    return json.dumps({"v": 1, **fields}) + "\n"


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    run = RunLayout(tmp_path / "run-abc123")
    run.attempt(0).mkdir(parents=True)
    return run


def test_what_was_added_is_read_and_a_torn_line_waits(layout: RunLayout) -> None:
    tail = MetricsTail(layout)
    assert tail.look() == Progress()
    one = record(t=NOW, step=10, steps=40, loss=3.0, tokens_per_s=100.0)
    two = record(t=NOW + 5, step=20, steps=40, loss=2.0, tokens_per_s=300.0)
    with layout.metrics(0).open("a") as file:
        file.write(one + two[:30])
        file.flush()
        assert tail.look() == Progress(10, 40, 3.0, (3.0,), 100.0, None, NOW)
        file.write(two[30:] + "not json\n" + record(t=1, step=99).replace('"v": 1', '"v": 2'))
        file.flush()
        assert tail.look() == Progress(20, 40, 2.0, (3.0, 2.0), 300.0, 0.5, NOW + 5)
    assert tail.mean_tokens_per_s == 200.0


def test_a_new_attempt_takes_over(layout: RunLayout) -> None:
    tail = MetricsTail(layout)
    layout.metrics(0).write_text(record(t=NOW, step=90, steps=100, loss=1.0))
    assert tail.look().step == 90
    layout.attempt(1).mkdir()
    layout.metrics(1).write_text(record(t=NOW + 60, step=50, steps=100, loss=1.5))
    progress = tail.look()
    assert (progress.step, progress.losses, progress.seconds_per_step) == (50, (1.0, 1.5), None)


def test_what_is_null_shows_nothing(layout: RunLayout) -> None:
    layout.metrics(0).write_text(record(t=NOW, step=1, steps=None, tokens_per_s=None))
    assert MetricsTail(layout).look() == Progress(step=1, reported=NOW)


@pytest.mark.parametrize("lost", [float("nan"), float("inf"), None, 1e200])
def test_a_loss_that_is_not_finite_is_no_older_loss_and_none_is_none(
    layout: RunLayout, lost: float | None
) -> None:
    """JSON has no NaN: a null is one."""
    layout.metrics(0).write_text(record(t=NOW, step=1, loss=2.0) + record(t=NOW, step=2, loss=lost))
    progress = MetricsTail(layout).look()
    assert progress.loss is not None and math.isnan(progress.loss)
    assert progress.losses == (2.0,)
    assert progress_line(progress, NOW) == "step 2  loss nan"


def test_a_long_run_keeps_a_bounded_picture_of_its_losses(layout: RunLayout) -> None:
    layout.metrics(0).write_text(
        "".join(record(t=NOW + i, step=i, loss=float(i)) for i in range(12_000))
    )
    tail = MetricsTail(layout)
    while tail.look().step != 11_999:
        pass
    losses = tail.progress.losses
    assert len(losses) <= 4096
    assert losses[0] == 0 and losses[-1] > 11_900 and list(losses) == sorted(losses)


def test_the_time_left_falls_between_reports() -> None:
    assert HALFWAY.eta(NOW) == 100
    assert HALFWAY.eta(NOW + 30) == 70
    assert HALFWAY.eta(NOW + 1000) == 0
    assert Progress(step=1).eta(NOW) is None


def test_the_line_at_120_columns_shows_everything() -> None:
    line = progress_bar("running 1m40s", HALFWAY, NOW, 119, PLAIN)
    assert line.startswith("running 1m40s  200/400  ━━━")
    assert line.endswith("50%  loss 2.2500  █▇▇▆▅▅▄▄▃▂▂▁  12.3k tokens/s  ETA 1m40s")
    assert line.count("━") == line.count("─")


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (99, "▁", ""),
        (79, "tokens/s", "▁"),
        (62, "ETA", "tokens/s"),
        (48, "ETA", "━"),
        (36, "loss 2.2500", "ETA"),
        (9, "running", "loss"),
    ],
)
def test_what_matters_least_goes_first(width: int, shown: str, left_out: str) -> None:
    line = progress_bar("running", HALFWAY, NOW, width, PLAIN)
    assert shown in line
    assert not left_out or left_out not in line


@given(
    st.integers(1, 300),
    st.text("abc äß", max_size=60),
    st.builds(
        Progress,
        step=st.none() | st.integers(0, 10**9),
        steps=st.none() | st.integers(1, 10**9),
        loss=st.none() | st.floats(-1e30, 1e30),
        losses=st.lists(st.floats(-1e30, 1e30), max_size=40).map(tuple),
        tokens_per_s=st.none() | st.floats(0, 1e15),
        seconds_per_step=st.none() | st.floats(0, 1e6),
        reported=st.none() | st.just(NOW),
    ),
    st.booleans(),
    st.booleans(),
)
def test_the_line_never_exceeds_its_width(
    width: int, head: str, progress: Progress, colour: bool, unicode: bool
) -> None:
    line = progress_bar(head, progress, NOW, width, Style(colour, unicode))
    bare = re.sub(r"\x1b\[\d+m", "", line)
    assert len(bare) <= width
    assert colour or bare == line
    assert unicode or re.search("[▁-█━─]", line) is None


def test_a_pipe_gets_plain_words() -> None:
    assert (
        progress_line(HALFWAY, NOW) == "step 200/400  50%  loss 2.2500  12.3k tokens/s  ETA 1m40s"
    )
    assert progress_line(Progress(step=7), NOW) == "step 7"


def test_the_trend_falls_with_the_loss() -> None:
    assert trend([4, 3, 2, 1]) == "█▆▃▁"
    assert trend([1.0]) == ""
    assert trend([2, 2, 2]) == "▁▁▁"
    assert len(trend(range(1000))) == 12


@pytest.mark.parametrize(
    ("per_second", "words"),
    [
        (0, "0"),
        (949.6, "950"),
        (12_345, "12.3k"),
        (999_999, "1.00M"),
        (7_750, "7.75k"),
        (3e9, "3000M"),
        (1.25e6, "1.25M"),
    ],
)
def test_rates_are_short(per_second: float, words: str) -> None:
    assert rate(per_second) == words
