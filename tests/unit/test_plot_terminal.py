"""Curves in characters: where they stand, what fits, what tells them apart."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from orchestrator.metrics.series import Start
from orchestrator.metrics.thinning import Curve
from orchestrator.plot.canvas import Canvas
from orchestrator.plot.glyphs import UNICODE
from orchestrator.plot.panels import PANELS
from orchestrator.plot.picture import Drawn
from orchestrator.plot.scale import Axis
from orchestrator.plot.terminal import Look, page
from orchestrator.plot.ticks import elapsed, log_ticks, ticks, time_ticks, written

CROSS = UNICODE.bad
PLAIN = Look(80, colour=False, unicode=True)


def curve(values: list[float | None], *, every: int = 1) -> Curve:
    count = len(values)
    steps = tuple(float(every * number) for number in range(count))
    bad = tuple(int(value is None) for value in values)
    return Curve(steps, steps, tuple(values), tuple(values), tuple(values), bad)


def drawn(mark: str = "A", **curves: Curve) -> Drawn:
    return Drawn(f"run-{mark}", "run", "completed", mark, curves, (Start(0, 0, 0.0),))


def rows(text: str, title: str = "Loss") -> list[str]:
    """The lines of the first panel, between its axes: what stands right of the vertical one."""
    block = text[text.index(title) :].splitlines()[1:]
    end = next(number for number, line in enumerate(block) if line.lstrip()[:1] in "└+")
    return [re.split("[│┤|]|(?<=[0-9]) \\+", line, maxsplit=1)[1] for line in block[:end]]


def test_dots_are_braille_bits_from_the_top_left() -> None:
    canvas = Canvas(2, 1)
    for x, y in ((0, 0), (1, 3), (2, 1), (9, 9)):
        canvas.dot(x, y, "*", "")
    assert [character for character, _ in canvas.cells()[0]] == ["⢁", "⠂"]


def test_a_rising_curve_goes_from_bottom_left_to_top_right() -> None:
    found = rows(page([drawn(loss=curve([float(n) for n in range(100)]))], PLAIN))
    first = [len(row) - len(row.lstrip()) for row in found if row.strip()]
    assert first == sorted(first, reverse=True) and len(first) == len(found)
    assert first[-1] == 0


@pytest.mark.parametrize("width", [40, 76, 80, 133, 250])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(width: int, unicode: bool) -> None:
    values = [abs(float(n % 17) - 8) * 10**5 for n in range(3000)]
    runs = [drawn(mark, loss=curve(values), lr=curve(values), mfu=curve([0.5])) for mark in "AB"]
    text = page(runs, Look(width, colour=False, unicode=unicode))
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii() is not unicode


def test_the_numbers_on_the_axis_are_those_of_the_curve() -> None:
    text = page([drawn(lr=curve([0.0, 0.002, 0.004, 0.001], every=100))], PLAIN)
    assert "0.004 ┤" in text and "0 ┤" in text
    assert text.splitlines()[-1].split()[::2] == ["0", "100", "200", "300"]


def test_several_runs_are_told_apart_without_colour() -> None:
    flat = {"A": 1.0, "B": 2.0, "C": 3.0}
    runs = [drawn(mark, loss=curve([value] * 200)) for mark, value in flat.items()]
    for unicode in (True, False):
        found = rows(page(runs, Look(80, colour=False, unicode=unicode)))
        where = {mark: [n for n, row in enumerate(found) if mark in row] for mark in "ABC"}
        assert where["C"] < where["B"] < where["A"]
        assert all(found[lines[0]].count(mark) > 1 for mark, lines in where.items())


def test_what_is_not_finite_is_a_gap_with_a_mark_below() -> None:
    values: list[float | None] = [1.0] * 300
    values[100:200] = [None] * 100
    text = page([drawn(loss=curve(values))], PLAIN)
    found = rows(text)
    assert f"{CROSS} not finite: 100" in text
    level = next(row for row in found if "⠒" in row or "⠤" in row or "⣀" in row or "⠉" in row)
    assert re.fullmatch(r"\S+ {20,}\S+", level.rstrip())
    assert re.fullmatch(rf" *{CROSS}{{20,}} *", found[-1])


def test_a_spike_of_one_thinned_point_is_drawn_to_its_top() -> None:
    flat = curve([1.0] * 100)
    highs = tuple(9.0 if number == 50 else 1.0 for number in range(100))
    spiked = Curve(flat.steps, flat.times, flat.values, flat.lows, highs, flat.not_finite)
    found = rows(page([drawn(loss=spiked)], PLAIN))
    columns = [row.index(mark) for row in found for mark in row.rstrip() if mark not in "⠒⠤⣀⠉ "]
    assert len(set(columns)) == 1 and len(columns) >= len(found) - 2


def test_over_time_no_line_leads_from_one_attempt_to_the_next() -> None:
    times = tuple(map(float, [*range(50), *range(200, 250)]))
    steps = tuple(map(float, range(100)))
    flat = (1.0,) * 100
    stood = Curve(steps, times, flat, flat, flat, (0,) * 100)
    starts = (Start(0, 0, 0.0), Start(1, 50, 199.5))
    run = Drawn("run-A", "run", "completed", "A", {"loss": stood}, starts)
    axes: tuple[tuple[Axis, range], ...] = (("step", range(1)), ("time", range(30, 60)))
    for axis, widest in axes:
        found = rows(page([run], PLAIN, axis=axis))
        level = next(row for row in found if re.search("[⠀-⣿]", row)).replace(UNICODE.restart, "⠒")
        assert max(len(gap) for gap in re.findall("[⠀-⣿]( *)(?=[⠀-⣿])", level)) in widest


def test_colour_is_written_only_where_it_is_wanted() -> None:
    runs = [drawn(loss=curve([1.0, 2.0]))]
    assert "\x1b" not in page(runs, PLAIN)
    coloured = page(runs, Look(80, colour=True, unicode=True))
    assert "\x1b[36m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == page(runs, PLAIN)


def test_restarts_are_told_and_drawn() -> None:
    run = drawn(loss=curve([1.0] * 100))
    starts = (Start(0, 0, 0.0), Start(1, 50, 50.0))
    again = Drawn(run.run_id, "run", "completed", "A", run.curves, starts, {0: "node-failure"})
    text = page([again], PLAIN)
    assert "┊ attempt 1 from step 50, after node-failure" in text
    assert sum("┊" in row for row in rows(text)) > 5


def test_however_often_a_run_was_restarted_its_curve_is_seen() -> None:
    run = drawn(loss=curve([1.0 + step % 7 for step in range(500)]))
    starts = tuple(Start(number, number, float(number)) for number in range(500))
    again = Drawn(run.run_id, "run", "completed", "A", run.curves, starts, {})
    dots = sum("\u2801" <= sign <= "\u28ff" for row in rows(page([again], PLAIN)) for sign in row)
    once = sum("\u2801" <= sign <= "\u28ff" for row in rows(page([run], PLAIN)) for sign in row)
    assert dots == once > 20


def test_a_name_never_steers_the_terminal() -> None:
    run = drawn(loss=curve([1.0, 2.0]))
    evil = Drawn("x\x1b[2J\x07\u202e", "run", "completed", "A", run.curves, run.starts)
    assert page([evil], PLAIN).splitlines()[0].split()[0] == "x�[2J��"


@pytest.mark.parametrize("value", [0.0, -5.0, 1e-300, 1e300])
@pytest.mark.parametrize("log", [True, False])
def test_flat_extreme_and_negative_curves_are_drawn(value: float, log: bool) -> None:
    for panel in PANELS:
        text = page([drawn(**{panel.key: curve([value] * 3)})], PLAIN, log=log, only=[panel.key])
        assert panel.title in text


def test_one_report_is_a_picture_too() -> None:
    assert any(row.strip() for row in rows(page([drawn(loss=curve([2.0]))], PLAIN)))


def test_ticks_are_round() -> None:
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.1, 0.42, 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert ticks(0, 3 * 2**30, 4, "bytes") == [0, 2**30, 2 * 2**30, 3 * 2**30]
    assert log_ticks(0.001, 1000, 3) == [0.001, 0.1, 10, 1000]
    assert log_ticks(1, 20, 4) == [1, 2, 5, 10, 20]
    assert time_ticks(7300, 4) == [0, 3600, 7200]
    assert time_ticks(30 * 86400, 4) == [0, 10 * 86400, 20 * 86400, 30 * 86400]


def test_numbers_are_short() -> None:
    numbers = [2.4, 0.0004, 0.00004, 12345678.0, -3.0, 0.0]
    assert [written(number, "number") for number in numbers] == [
        "2.400", "0.0004", "4e-5", "12.3M", "-3.000", "0",
    ]  # fmt: skip
    assert written(2.4, "number", tick=True) == "2.4"
    assert [written(number, "rate") for number in (950.0, 16_456.0)] == ["950", "16.5k"]
    assert [written(number, "bytes") for number in (0.0, 1.5 * 2**30)] == ["0 B", "1.5 GiB"]
    assert (written(0.456, "share"), written(45.0, "percent")) == ("45.6%", "45%")
    assert [elapsed(seconds) for seconds in (8, 192, 7500, 356400)] == [
        "8s", "3m12s", "2h05m", "4d03h",
    ]  # fmt: skip


def test_the_headline_says_that_the_loss_is_not_finite_and_since_when() -> None:
    run = drawn(loss=curve([2.0, None, None]))
    lost = replace(run, last={"loss": 2.0}, not_finite={"loss": 1})
    head = page([lost], PLAIN).splitlines()[0]
    assert "loss not finite since step 1 (last 2.000)" in head
    never = replace(run, last={}, not_finite={"loss": 0})
    assert "loss not finite since step 0" in page([never], PLAIN).splitlines()[0]
    assert "(last" not in page([never], PLAIN)


def test_a_quantity_asked_for_by_name_is_drawn_beside_the_one_it_stands_in_for() -> None:
    both = drawn(tokens_per_s=curve([1.0]), samples_per_s=curve([2.0]))
    assert "samples/s" not in page([both], PLAIN)
    text = page([both], PLAIN, only=["samples_per_s"])
    assert "samples/s" in text and any(row.strip() for row in rows(text, "Throughput"))


def test_a_log_scale_counts_what_it_leaves_out() -> None:
    text = page([drawn(loss=curve([100.0, 10.0, 1.0, 0.0, -1.0]))], PLAIN, log=True)
    assert "nats, log  2 not above 0, left out" in text
    assert "left out" not in page([drawn(loss=curve([2.0, 1.0]))], PLAIN, log=True)


def test_where_nothing_is_above_zero_a_panel_is_linear_and_says_so() -> None:
    text = page([drawn(loss=curve([-5.0, -4.0]), lr=curve([1.0, 0.1]))], PLAIN, log=True)
    assert "Loss  nats  not log: nothing above 0" in text
    assert "-4 ┤" in text and any(row.strip() for row in rows(text))
    assert "Learning rate  log" in text  # each by itself


@pytest.mark.parametrize("values", [[1e-300, 1e300], [5e-324, 1.0], [1e-8, 1.0, 1e12]])
def test_however_far_apart_values_are_a_log_scale_has_a_few_numbers_along_it(
    values: list[float | None],
) -> None:
    text = page([drawn(loss=curve(values))], PLAIN, log=True)
    block = text[text.index("Loss") :].splitlines()[1:13]
    marks = [number for number, line in enumerate(block) if "┤" in line]
    assert 2 <= len(marks) <= 8 and marks[-1] - marks[0] >= 5
    low, high = (value for value in (values[0], values[-1]) if value is not None)
    for count in range(1, 12):
        assert 1 <= len(log_ticks(low, high, count)) <= count + 1
