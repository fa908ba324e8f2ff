"""`ptx plot` as a person types it: what it prints, writes and refuses."""

from __future__ import annotations

import json
import math
import os
import pty
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.made_metrics import loss_at, sampled, training
from support.made_runs import CREATED, MadeRun
from support.ptx import Ptx


@pytest.fixture
def ptx(tmp_path: Path) -> Ptx:
    return Ptx(tmp_path / "runs", {"XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "90"})


@pytest.fixture
def run(ptx: Ptx) -> MadeRun:
    return training(MadeRun(ptx.runs, "lm-aaaaaa").completed(), range(10, 801, 10))


def test_a_run_is_drawn_in_characters_on_stdout_and_the_rest_is_said_on_stderr(
    ptx: Ptx, run: MadeRun
) -> None:
    done = ptx("plot", "lm")
    assert done.returncode == 0
    for words in ("lm-aaaaaa  completed  step 800/800", "Loss  nats", "Throughput", "Learning"):
        assert words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 90
    assert "\x1b" not in done.stdout
    assert done.stderr == "next: ptx plot lm-aaaaaa --html plot.html\n"


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_it_is_ascii_where_the_locale_is_not_utf_8(
    ptx: Ptx, run: MadeRun, environment: dict[str, str]
) -> None:
    ptx.env |= environment
    assert ptx.ok("plot", "lm").isascii()
    assert "⠒" in Ptx(ptx.runs).ok("plot", str(run.layout.root))


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_colour_goes_to_terminals_unless_it_is_not_wanted(
    ptx: Ptx, run: MadeRun, no_colour: str, coloured: bool
) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | ptx.env | {"NO_COLOR": no_colour, "TERM": "xterm"}
    with subprocess.Popen(
        [*ptx.argv, "plot", str(run.layout.root)],
        stdout=theirs, stderr=theirs, cwd=ptx.cwd, env=environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        told = b""
        while True:
            try:
                told += (block := os.read(ours, 1 << 16))
            except OSError:  # how a terminal says that nobody is left at the other end
                break
            if not block:
                break
    os.close(ours)
    assert process.returncode == 0
    assert (b"\x1b[36m" in told) is coloured
    assert b"Loss" in told


def test_the_json_is_the_series(ptx: Ptx, run: MadeRun) -> None:
    sampled(run, range(10, 810, 5), util=lambda t, gpu: 90.0 if gpu else 50.0)
    told = json.loads(ptx.ok("plot", "lm", "--json"))
    (one,) = told["runs"]
    series = {row["name"]: row for row in one["series"]}
    assert one["attempts"] == [{"attempt": 0, "start_step": 0, "t": CREATED + 10}]
    assert series["loss"]["step"] == list(range(10, 801, 10))
    assert series["loss"]["value"] == [loss_at(step) for step in range(10, 801, 10)]
    assert series["loss"]["last"] == loss_at(800)
    assert set(series["gpu_util"]["value"]) == {85.0}
    assert set(series["gpu_util"]["low"]) == {50.0}
    # A sample at second t is one of step t - 10, until the last report.
    step, t = series["gpu_util"]["step"][40], series["gpu_util"]["t"][40]
    assert step == pytest.approx(t - CREATED - 10)
    only = json.loads(ptx.ok("plot", "lm", "--json", "-m", "lr", "-m", "loss"))["runs"][0]
    assert [row["name"] for row in only["series"]] == ["loss", "lr"]


def test_samples_of_work_that_was_undone_stand_at_no_step(ptx: Ptx) -> None:
    run = training(MadeRun(ptx.runs, "lm-bbbbbb").completed(), range(10, 101, 10))
    training(run, range(60, 201, 10), attempt=1, start_step=50, began=500)
    sampled(run, range(10, 110, 5))
    sampled(run, range(480, 650, 5), attempt=1)
    told = json.loads(ptx.ok("plot", "lm", "--json", "-m", "gpu_util"))["runs"][0]["series"][0]
    placed = dict(zip((t - CREATED for t in told["t"]), told["step"], strict=True))
    assert placed[32.5] == pytest.approx(22.5)
    assert placed[72.5] is None  # of attempt 0, beyond step 50
    assert placed[482.5] is None  # starting up
    assert placed[512.5] == pytest.approx(62.5)


def test_samples_that_are_none_are_passed_over(ptx: Ptx, run: MadeRun) -> None:
    path = sampled(run, range(10, 100, 5), gpus=1, util=lambda t, gpu: 40.0)
    odd = [
        {"v": 1, "t": 1e300, "gpus": [{"util": 7}]},
        {"v": 1, "t": CREATED + 50, "gpus": [{"util": "7"}, 7, {"util": None}, {"util": 1e308}]},
        {"v": 1, "t": CREATED + 50, "gpus": {"util": 7}, "cpu": {"used": 1, "cores": 0}},
        {"v": 1, "t": CREATED + 50, "gpus": None, "cpu": "busy"},
    ]
    with path.open("a") as file:
        file.write("\n".join(json.dumps(one) for one in odd) + "\n\0\0\n" + "[" * 9999 + '{"v":1')
    run.layout.node(0, 1).mkdir()
    (run.layout.node(0, 1) / "samples.jsonl").mkdir()
    told = json.loads(ptx.ok("plot", "lm", "--json", "-m", "gpu_util"))["runs"][0]["series"][0]
    assert set(told["value"]) == {40.0} and len(told["value"]) == 18


def test_samples_of_a_run_without_reports_are_drawn_along_the_time(ptx: Ptx) -> None:
    sampled(MadeRun(ptx.runs, "measured-cccccc").completed(), range(10, 100, 5))
    assert "GPU utilisation" in ptx.ok("plot", "measured", "--x", "time")


def test_a_page_goes_to_stdout_and_the_words_beside_it(ptx: Ptx, run: MadeRun) -> None:
    done = ptx("plot", "lm", "--html", "-")
    assert done.returncode == 0
    assert done.stdout.startswith("<!doctype html>") and done.stdout.endswith("</html>\n")
    assert "Open it in a browser" in done.stderr
    assert not Path("-").exists()
    both = json.loads(ptx("plot", "lm", "--html", "-", "--json").stdout)
    assert "would both write to stdout" in both["error"]["message"]


def test_a_page_is_put_where_it_was_whole_and_through_a_link(ptx: Ptx, run: MadeRun) -> None:
    page, link = ptx.runs / "page.html", ptx.runs / "link.html"
    page.write_text("old")
    page.chmod(0o640)
    link.symlink_to(page)
    with page.open() as reader:  # whoever has it open goes on with the old one
        ptx.ok("plot", "lm", "--html", str(link))
        assert reader.read() == "old"
    assert link.is_symlink() and page.read_text().startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == 0o640
    assert not list(ptx.runs.glob(".page*"))


def test_a_pipe_is_written_to_and_stays_one(ptx: Ptx, run: MadeRun) -> None:
    pipe = ptx.runs / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        ptx.ok("plot", "lm", "--html", str(pipe))
        assert read.result(60).endswith("</html>\n")
    assert pipe.is_fifo()


@pytest.mark.slow
def test_a_page_is_one_bounded_file_that_keeps_the_extremes(ptx: Ptx) -> None:
    spikes = {7_777: 99.0, 20_001: -3.0, 15_000: math.nan}
    for name in "abc":
        run = MadeRun(ptx.runs, f"{name}-{name * 6}").completed()
        training(run, range(1, 30_001), every=1, loss=lambda step: spikes.get(step, loss_at(step)))
    page = ptx.runs / "page.html"
    assert ptx.ok("plot", "a", "b", "c", "--html", str(page)) == f"{page}\n"
    text = page.read_text()
    assert len(text) < 2_000_000
    assert "<title>a-aaaaaa, b-bbbbbb, c-cccccc - ptx plot</title>" in text
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    for one in data["runs"]:
        loss = one["curves"]["loss"]
        assert max(filter(None, loss["h"])) == 99 and min(filter(None, loss["l"])) == -3
        assert sum(count for _, count in loss["bad"]) == 1


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["nothing"], 3, "There is no run 'nothing'"),
        (["lm", "--x", "epoch"], 2, "--x 'epoch' is no axis"),
        (["lm", "--metric", "lost"], 2, "--metric 'lost' is unknown"),
        (["lm", "--metric", "mfu"], 3, "no mfu"),
        (["silent"], 3, "silent-bbbbbb has reported no metrics."),
        (["silent", "mute"], 3, "None of these 2 runs has reported metrics."),
        (["measured"], 3, "measured-cccccc has reported no metrics."),
        (["measured"], 3, "`ptx plot measured-cccccc --x time` draws"),
        (["silent", "--x", "time"], 3, "`ptx logs silent-bbbbbb` shows"),
        (["lm", "--html", "/nowhere/at/all.html"], 2, "cannot be written"),
        ([], 2, "Missing argument"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_sentence(
    ptx: Ptx, run: MadeRun, argv: list[str], code: int, said: str
) -> None:
    MadeRun(ptx.runs, "silent-bbbbbb").submitted()
    MadeRun(ptx.runs, "mute-dddddd").submitted()
    sampled(MadeRun(ptx.runs, "measured-cccccc").completed(), range(10, 100, 5))
    done = ptx("plot", *argv)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr and "hint: " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["metrics", "plot"])
def test_reports_that_are_none_are_not_asked_for_but_told_what_they_lack(
    ptx: Ptx, command: str
) -> None:
    own = MadeRun(ptx.runs, "own-aaaaaa").completed()
    own.layout.attempt(0).mkdir(parents=True, exist_ok=True)
    path = own.layout.metrics(0)
    path.write_text("".join(f'{{"t": 1700000000, "step": {i}, "loss": 2}}\n\n' for i in range(33)))
    done = ptx(command, "own")
    assert (done.returncode, done.stdout) == (3, "")
    told = " ".join(done.stderr.split())
    assert f"no metrics that ptx understands: {path} has 33 lines, and none is a report." in told
    assert '"v": 1' in told and '"t"' in told and '"step"' in told
    assert "others may write" not in told
    path.write_text('{"v": 1, "t": 17000')  # being written
    assert "own-aaaaaa has reported no metrics. " in " ".join(ptx(command, "own").stderr.split())
    own.metrics(attempt=1, step=1, loss=2.0).metrics(attempt=1, t=40, step=2, loss=2.0)
    ptx.ok(command, "own")


def test_more_runs_than_can_be_told_apart_are_refused(ptx: Ptx) -> None:
    names = [f"r-{number:06d}" for number in range(51)]
    for name in names:
        training(MadeRun(ptx.runs, name).completed(), range(10, 31, 10))
    assert "too many for one picture" in ptx("plot", *names).stderr
    assert ptx.ok("plot", *names[:50]).count("completed") == 50


def test_a_run_that_trains_now_is_drawn_as_far_as_it_is(ptx: Ptx) -> None:
    run = training(MadeRun(ptx.runs, "lm-cccccc").submitted().started(), range(10, 51, 10))
    with run.layout.metrics(0).open("a") as file:
        file.write('{"v": 1, "t": 17000')
    assert "step 50/50" in ptx.ok("plot", "lm")


def test_each_metric_that_is_asked_for_is_drawn_or_named(ptx: Ptx, run: MadeRun) -> None:
    """The run has tokens/s too, which are shown where nobody asks."""
    done = ptx("plot", "lm", "-m", "samples_per_s", "-m", "mfu")
    assert done.returncode == 0 and "samples/s" in done.stdout
    assert done.stderr.splitlines()[0] == "There is no mfu in these runs."
    page = ptx.ok("plot", "lm", "-m", "samples_per_s", "--html", "-")
    (panel,) = json.loads(page.split('id="data">')[1].split("</script>")[0])["panels"]
    assert (panel["key"], panel["instead_of"]) == ("samples_per_s", "")


def test_what_has_a_place_along_the_time_alone_is_no_empty_picture(ptx: Ptx) -> None:
    run = training(MadeRun(ptx.runs, "late-aaaaaa").completed(), range(10, 51, 10), began=500)
    sampled(run, range(10, 100, 5))  # all of them before the first step
    done = ptx("plot", "late", "-m", "gpu_util")
    assert (done.returncode, done.stdout) == (3, "")
    assert "No gpu_util was measured at a step" in done.stderr
    assert "`ptx plot late-aaaaaa -m gpu_util --x time` draws it" in done.stderr
    assert "GPU utilisation" in ptx.ok("plot", "late", "-m", "gpu_util", "--x", "time")
    both = ptx("plot", "late", "-m", "gpu_util", "-m", "loss")
    assert both.returncode == 0 and "Loss" in both.stdout
    assert "No gpu_util was measured" in both.stderr
    for metrics, axis in ((["-m", "gpu_util"], "time"), (["-m", "loss"], "step"), ([], "step")):
        page = ptx.ok("plot", "late", *metrics, "--html", "-")
        data = json.loads(page.split('id="data">')[1].split("</script>")[0])
        assert data["axis"] == axis


def test_what_a_hint_names_can_be_asked_for(ptx: Ptx, run: MadeRun) -> None:
    hint = ptx("plot", "lm", "-m", "mfu").stderr.partition("Known: ")[2].strip().rstrip(".")
    assert "samples_per_s" in hint
    for name in hint.split(", "):
        assert ptx("plot", "lm", "-m", name).returncode == 0, name


def test_a_run_of_nothing_that_has_a_panel_is_told_so(ptx: Ptx) -> None:
    MadeRun(ptx.runs, "eval-aaaaaa").completed().metrics(step=1, eval_loss=2.0)
    done = ptx("plot", "eval")
    assert (done.returncode, done.stdout) == (3, "")
    assert "only eval_loss" in done.stderr and "ptx metrics eval-aaaaaa" in done.stderr
