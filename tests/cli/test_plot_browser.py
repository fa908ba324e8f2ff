"""The page of `ptx plot --html` in a real browser: what is drawn, said and never asked for."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chromium import BROWSER, Page, chromium
from support.made_metrics import loss_at, sampled, training
from support.made_runs import MadeRun
from support.ptx import Ptx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium"),
]

EVIL = "</script><img src=x onerror=alert(1)><!--${1}&amp;\u202e\u2028'\""
STEPS = range(10, 801, 10)
OTHER_STEPS = range(10, 401, 10)


def spiked(step: int) -> float:
    """A spike and a dip among thousands."""
    return {3003: 9.0, 4444: 0.2}.get(step, loss_at(step))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages that the real command has written."""
    folder = tmp_path_factory.mktemp("plots")
    ptx = Ptx(folder / "runs", {"XDG_STATE_HOME": str(folder / "state")})
    one = training(MadeRun(ptx.runs, "one-aaaaaa").completed(), STEPS)
    sampled(one, range(10, 810, 5))
    training(MadeRun(ptx.runs, "two-bbbbbb").completed(), OTHER_STEPS, loss=lambda step: 2.0 + step)
    again = MadeRun(ptx.runs, "again-cccccc").submitted().started()
    training(again, range(10, 101, 10), loss=lambda step: math.nan if step == 50 else 1.0)
    training(again, range(90, 201, 10), attempt=1, start_step=80, began=900)
    again.over("node-failure", where="requeue").over("completed", attempt=1)
    long = MadeRun(ptx.runs, "long-dddddd").completed()
    training(long, range(1, 6001), every=1, loss=spiked)
    evil = training(MadeRun(ptx.runs, "evil-eeeeee").completed(), STEPS)
    record = json.loads(evil.layout.record.read_text())
    evil.layout.record.write_text(json.dumps(record | {"run_id": EVIL, "name": EVIL}))
    bare = MadeRun(ptx.runs, "bare-ffffff").completed()
    sampled(bare, range(10, 810, 5))
    lost = MadeRun(ptx.runs, "lost-aaaaaa").completed()
    training(lost, range(10, 201, 10), loss=lambda step: math.nan if step > 100 else step - 50.0)
    training(MadeRun(ptx.runs, "below-aaaaaa").completed(), STEPS, loss=lambda step: -3.0 - step)
    found = {}
    for name, runs in {
        "one": [one.layout.run_id],
        "two": [one.layout.run_id, "two"],
        "again": ["again"],
        "long": [long.layout.run_id],
        "evil": [str(evil.layout.root), one.layout.run_id],
        "chosen": ["again", "-m", "lr", "-m", "grad_norm", "--x", "time", "--log"],
        "sampled": [bare.layout.run_id],
        "lost": ["lost", "-m", "loss", "-m", "samples_per_s", "--log"],
        "below": ["below", "--log"],
    }.items():
        found[name] = folder / f"{name}.html"
        ptx.ok("plot", *runs, "--html", str(found[name]))
    return found


@pytest.fixture
def page(browser: Page, files: dict[str, Path]) -> Iterator[Page]:
    """Empty; whatever a test opened must have asked for nothing else and complained of nothing."""
    browser.open("about:blank")
    browser.events.clear()
    yield browser
    asked = [url for url in browser.requests() if url not in map(Path.as_uri, files.values())]
    assert asked == []
    assert browser.complaints() == []


def opened(page: Page, file: Path, **size: int) -> Page:
    page.open(file.as_uri(), **size)
    return page


def ticks(page: Page, panel: str, axis: str) -> dict[float, float]:
    """Number beside an axis -> its pixel."""
    offset = "- 4" if axis == "y" else ""
    rows = page.evaluate(
        f"[...document.querySelectorAll('#panel-{panel} .{axis}-tick')]"
        f".map((e) => [+e.dataset.value, +e.getAttribute('{axis}') {offset}])"
    )
    return dict(rows)


def drawn(page: Page, panel: str, run: str, *, log: bool = False) -> list[tuple[float, float]]:
    """The points of a curve, read off the picture with the help of its axes' numbers."""
    path = page.evaluate(
        f"document.querySelector('#panel-{panel} [data-run={json.dumps(run)}] .line')"
        ".getAttribute('d')"
    )
    pixels = [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]]
    x, y = reader(ticks(page, panel, "x")), reader(ticks(page, panel, "y"), log=log)
    return [(x(across), y(down)) for across, down in pixels]


def reader(marks: dict[float, float], *, log: bool = False) -> Any:
    """Pixel -> number, from the first and third number of an axis; the last may be moved."""
    (v0, p0), _, (v1, p1), *_ = marks.items()
    if log:
        v0, v1 = math.log(v0), math.log(v1)

    def read(pixel: float) -> float:
        value = v0 + (pixel - p0) * (v1 - v0) / (p1 - p0)
        return math.exp(value) if log else value

    return read


def hover(page: Page, panel: str, step: float) -> str:
    """Put the pointer over a step, and return what the tooltip says."""
    box = page.box(f"#panel-{panel} .plot")
    (v0, p0), (v1, p1), *_ = ticks(page, panel, "x").items()
    across = p0 + (step - v0) * (p1 - p0) / (v1 - v0)
    page.point(box["x"] + across, box["y"] + box["height"] / 2)
    page.settle()
    assert page.evaluate(f"document.querySelector('#panel-{panel} .tip').hidden") is False
    told: str = page.evaluate(f"document.querySelector('#panel-{panel} .tip').innerText")
    return " ".join(told.split())


def test_the_curves_are_those_of_the_series(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["two"])
    for run, steps, loss in (
        ("one-aaaaaa", STEPS, loss_at),
        ("two-bbbbbb", OTHER_STEPS, lambda step: 2.0 + step),
    ):
        points = drawn(page, "loss", run)
        assert [step for step, _ in points] == pytest.approx(list(steps), abs=0.5)
        values = [loss(step) for step in steps]
        assert [value for _, value in points] == pytest.approx(values, abs=0.5)  # of up to 402
    fields = page.evaluate("[...document.querySelectorAll('h2')].map((e) => e.textContent)")
    assert fields == [
        "Loss", "Throughput", "GPU utilisation", "GPU memory in use", "Peak memory",
        "Learning rate", "Gradient norm", "Waiting for data", "CPU utilisation",
    ]  # fmt: skip
    held_out = "document.querySelectorAll('#panel-loss [data-run=one-aaaaaa] circle').length"
    assert page.evaluate(held_out) == 4


def test_hovering_tells_the_step_and_each_runs_value(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["two"])
    told = hover(page, "loss", 302)
    assert told == f"step 300 A one-aaaaaa {loss_at(300):.3f} B two-bbbbbb 302.0"
    assert hover(page, "loss", 401).startswith("step 400 A one-aaaaaa")
    assert "held-out 402.1" in hover(page, "loss", 401)
    assert "B two-bbbbbb 402.0 held-out" not in hover(page, "loss", 700)
    assert "402.0 at 400" in hover(page, "loss", 700)
    crosses = "document.querySelectorAll('.cross').length"
    assert page.evaluate(crosses) == page.evaluate("document.querySelectorAll('.card').length")
    page.point(1, 1)
    page.settle()
    assert page.evaluate(crosses) == 0


def test_the_arrow_keys_move_along_a_picture(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["one"])
    page.evaluate("document.querySelector('#panel-loss .plot').focus()")
    for _ in range(2):
        page.send("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    page.settle()
    told = page.evaluate("document.querySelector('#panel-loss .tip').innerText")
    assert told.startswith("step 420")


def test_the_legend_toggles_runs_and_the_axes_follow(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["two"])
    assert max(ticks(page, "loss", "y")) == 400
    page.click(".run:nth-child(2)")
    runs = "[...document.querySelectorAll('#panel-loss .of-run')].map((e) => e.dataset.run)"
    assert page.evaluate(runs) == ["one-aaaaaa"]
    assert max(ticks(page, "loss", "y")) < 6
    assert "two" not in hover(page, "loss", 300)
    page.click(".run:nth-child(2)")
    assert page.evaluate(runs) == ["one-aaaaaa", "two-bbbbbb"]


def test_a_log_scale_moves_the_curve_and_not_its_values(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["two"])
    before = drawn(page, "loss", "two-bbbbbb")
    page.click("#panel-loss .log")
    after = drawn(page, "loss", "two-bbbbbb", log=True)
    values = [2.0 + step for step in OTHER_STEPS]
    assert [value for _, value in after] == pytest.approx(values, rel=0.005)
    assert [step for step, _ in before] == pytest.approx([step for step, _ in after])
    tens = list(ticks(page, "loss", "y").values())
    assert tens[0] - tens[1] == pytest.approx(tens[1] - tens[2], rel=0.5)


def test_time_is_an_axis_too(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["again"])
    assert [step for step, _ in drawn(page, "lr", "again-cccccc")] == pytest.approx(
        range(10, 201, 10), abs=0.5
    )
    page.click(".axis-time")
    seconds = [*range(10, 81, 10), *range(900, 1011, 10)]
    points = drawn(page, "lr", "again-cccccc")
    assert [t for t, _ in points] == pytest.approx(seconds, abs=2)
    path = "document.querySelector('#panel-lr .line').getAttribute('d')"
    assert page.evaluate(path).count("M") == 2  # between attempts the run stood still


def test_the_page_opens_as_it_was_asked_for(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["chosen"])
    fields = page.evaluate("[...document.querySelectorAll('h2')].map((e) => e.textContent)")
    assert fields == ["Learning rate", "Gradient norm"]
    pressed = "button:not(.run)[aria-pressed=true]"
    words = f"[...document.querySelectorAll('{pressed}')].map((e) => e.textContent)"
    assert page.evaluate(words) == ["Time", "log", "log"]
    assert max(ticks(page, "lr", "x")) > 900  # seconds; it made 200 steps


def test_a_run_without_steps_is_shown_along_the_time(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["sampled"])
    assert len(drawn(page, "gpu_util", "bare-ffffff")) > 50


def test_restarts_and_values_that_are_not_finite_are_marked(
    page: Page, files: dict[str, Path]
) -> None:
    opened(page, files["again"])
    assert page.evaluate("document.querySelector('.restart').textContent") == (
        "again-cccccc: attempt 1 from step 80, after node-failure"
    )
    at = page.evaluate("+document.querySelector('#panel-loss .restart').getAttribute('x1')")
    assert reader(ticks(page, "loss", "x"))(at) == pytest.approx(80, abs=0.5)
    assert page.evaluate("document.querySelector('.bad').textContent").endswith("not finite: 1")
    path = page.evaluate("document.querySelector('#panel-loss .line').getAttribute('d')")
    assert path.count("M") == 2  # a gap at step 50
    assert "not finite" in hover(page, "loss", 50)


def test_dragging_zooms_and_a_double_click_shows_all(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["one"])
    box, marks = page.box("#panel-loss .plot"), ticks(page, "loss", "x")
    y = box["y"] + 100
    page.drag((box["x"] + marks[200], y), (box["x"] + marks[400], y))
    for panel in ("loss", "lr"):
        assert all(200 <= tick <= 400 for tick in ticks(page, panel, "x"))
    page.click(".whole")
    assert max(ticks(page, "loss", "x")) == 800


def test_many_points_are_drawn_as_their_mean_with_their_extremes(
    page: Page, files: dict[str, Path]
) -> None:
    opened(page, files["long"])
    points = drawn(page, "loss", "long-dddddd")
    assert len(points) < 600
    band = page.evaluate("document.querySelector('#panel-loss .band').getBBox().height")
    y = ticks(page, "loss", "y")
    (v0, p0), (v1, p1), *_ = y.items()
    everything = [spiked(step) for step in range(1, 6001)]
    span = (max(everything) - min(everything)) * (p0 - p1) / (v1 - v0)
    assert band == pytest.approx(span, rel=0.01)
    before = len(points)
    box, marks = page.box("#panel-loss .plot"), ticks(page, "loss", "x")
    page.drag((box["x"] + marks[1000], box["y"] + 99), (box["x"] + marks[2000], box["y"] + 99))
    inside = [step for step, _ in drawn(page, "loss", "long-dddddd") if 1000 <= step <= 2000]
    assert len(inside) > before / 6  # zooming brings points back


def test_a_hostile_name_is_text(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["evil"])
    shown = EVIL.replace("\u202e", "\ufffd").replace("\u2028", "\ufffd")
    title = page.evaluate("document.getElementById('title').textContent")
    assert title == f"{shown}, one-aaaaaa"
    assert page.evaluate("document.title") == f"{title} - ptx plot"
    assert page.evaluate("document.images.length") == 0
    assert shown in page.evaluate("document.querySelector('.run').innerText")
    assert shown in page.evaluate("document.querySelector('#summary').innerText")
    assert shown in hover(page, "loss", 300)


def test_an_old_loss_is_not_shown_as_the_current_one(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["lost"])
    said = page.evaluate("document.querySelector('#summary').innerText")
    assert "not finite" in said and "50.00" not in said
    label = page.evaluate("document.querySelector('#panel-loss .plot').getAttribute('aria-label')")
    assert label == "Loss: lost-aaaaaa not finite"


def test_what_was_asked_for_by_name_is_drawn(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["lost"])
    points = drawn(page, "samples_per_s", "lost-aaaaaa")
    assert len(points) == 20 and {round(value) for _, value in points} == {400}


def test_a_log_scale_says_what_it_leaves_out_and_is_linear_where_nothing_is_left(
    page: Page, files: dict[str, Path]
) -> None:
    heads = {}
    for name in ("lost", "below"):
        opened(page, files[name])
        heads[name] = page.evaluate("document.querySelector('#panel-loss .head').innerText")
    assert "5 not above 0, left out" in heads["lost"]
    assert "not log: nothing above 0" in heads["below"]
    points = drawn(page, "loss", "below-aaaaaa")
    assert [value for _, value in points] == pytest.approx([-3.0 - step for step in STEPS], abs=2)


def test_no_script_but_the_pages_own_would_run(page: Page, files: dict[str, Path]) -> None:
    opened(page, files["one"])
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend',"
        "'<img src=http://127.0.0.1:9/x.png onerror=\"window.stolen=1\">');"
        "document.body.append(Object.assign(document.createElement('script'),"
        "{textContent: 'window.stolen = 1'}))"
    )
    page.settle()
    assert page.evaluate("window.stolen") is None
    refused = [event for event in page.complaints() if "Content Security" in json.dumps(event)]
    assert len(refused) >= 2
    page.events.clear()  # that is what this test asked for


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_readable_and_can_be_chosen(
    page: Page, files: dict[str, Path], scheme: str
) -> None:
    page.theme(scheme)
    opened(page, files["two"])
    other = "dark" if scheme == "light" else "light"
    assert contrast(page) > 7
    assert brightness(page) > 0.5 if scheme == "light" else brightness(page) < 0.1
    page.click(".theme")
    assert page.evaluate("document.documentElement.dataset.theme") == other
    assert contrast(page) > 7
    assert brightness(page) < 0.1 if scheme == "light" else brightness(page) > 0.5


def colour(page: Page, selector: str, what: str) -> list[float]:
    css = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{what}")
    return [int(part) / 255 for part in re.findall(r"\d+", css)[:3]]


def luminance(colour: list[float]) -> float:
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def brightness(page: Page) -> float:
    return luminance(colour(page, "body", "backgroundColor"))


def contrast(page: Page) -> float:
    pair = luminance(colour(page, "body", "color")), brightness(page)
    return (max(pair) + 0.05) / (min(pair) + 0.05)


@pytest.mark.parametrize("width", [360, 700, 1600])
def test_it_fits_every_width(page: Page, files: dict[str, Path], width: int) -> None:
    opened(page, files["two"], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    hover(page, "loss", 100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    overlaps = page.evaluate(
        """[...document.querySelectorAll(".plot")].filter((svg) => {
          const boxes = [...svg.querySelectorAll(".x-tick")].map((e) => e.getBoundingClientRect());
          const edge = svg.getBoundingClientRect();
          const cut = boxes.some((box) => box.right > edge.right + 1);
          return cut || boxes.some((box, i) => i && box.left < boxes[i - 1].right);
        }).length"""
    )
    assert overlaps == 0
