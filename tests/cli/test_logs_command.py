"""`ptx logs` as a process: what stands on stdout, what on stderr, and its exit code."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from logs_run import PATIENCE, ROOT, FakeRun, Terminal, ptx, run_ptx

from orchestrator.logs.line import stamp_of


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    """Ended, with two ranks whose lines interleave."""
    run = FakeRun.create(tmp_path)
    run.start()
    for i in range(5):
        run.log(0, f"step {i} loss {5 - i}", at=i)
        run.log(1, f"warning {i}", mark="e", at=i + 0.5)
    run.end(0, 0)
    return run


def out(run: FakeRun, *options: str) -> list[str]:
    done = run_ptx("logs", run.layout.root, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_ranks_are_merged_in_time_order_with_their_places(run: FakeRun) -> None:
    assert out(run)[:4] == [
        "[0 node-0000] step 0 loss 5",
        "[1 node-0000 err] warning 0",
        "[0 node-0000] step 1 loss 4",
        "[1 node-0000 err] warning 1",
    ]


def test_a_run_is_found_by_prefix_and_as_the_last_one(run: FakeRun) -> None:
    for name in ("demo-a", "@last"):
        done = run_ptx("logs", name, "--runs", run.layout.root.parent, "--tail", "1")
        assert done.stdout == "[1 node-0000 err] warning 4\n", done.stderr


def test_options_narrow_what_is_shown(run: FakeRun) -> None:
    assert len(out(run, "--rank", "1")) == 5
    assert out(run, "--tail", "2") == ["[0 node-0000] step 4 loss 1", "[1 node-0000 err] warning 4"]
    assert out(run, "--tail", "0") == []
    assert out(run, "--grep", "^step [13]") == [
        "[0 node-0000] step 1 loss 4",
        "[0 node-0000] step 3 loss 2",
    ]
    assert out(run, "--grep", "step", "--tail", "1") == ["[0 node-0000] step 4 loss 1"]
    assert out(run, "--since", stamp_of(run.began + 3.2))[0].endswith("warning 3")
    assert out(run, "--until", stamp_of(run.began + 0.7)) == out(run)[:2]
    assert out(run, "--node", "node-0000", "--attempt", "0") == out(run)


def test_json_is_one_object_a_line(run: FakeRun) -> None:
    lines = [json.loads(line) for line in out(run, "--json", "--tail", "1")]
    assert [{**line, "time": None} for line in lines] == [
        {
            "v": 1, "time": None, "attempt": 0, "node": 0, "rank": 1, "stream": "stderr",
            "text": "warning 4", "complete": True,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--grep", "a(b"], 2, "at character 2"),
        (["--rank", "9"], 3, "rank 0-1"),
        (["--rank", "x"], 2, "--rank"),
        (["--node", "4"], 3, "node 0"),
        (["--attempt", "2"], 3, "Attempts with logs: 0"),
        (["--since", "noon"], 2, "--since 10m"),
        (["--tail", "-1"], 2, "--tail"),
        (["--until", "never"], 2, "--until 10m"),
        (["--level", "loud"], 2, "WARNING"),
        (["--raw"], 2, "--rank 0"),
        (["--first-error", "--dedupe"], 2, "exclude"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    run: FakeRun, options: list[str], code: int, words: str
) -> None:
    done = run_ptx("logs", run.layout.root, *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr and "Traceback" not in done.stderr
    done = run_ptx("logs", run.layout.root, *options, "--json")
    assert done.returncode == code and json.loads(done.stdout)["error"]["message"]


def test_a_closed_pipe_ends_it_silently(run: FakeRun) -> None:
    run.log(0, *("x" * 100 for _ in range(50_000)), at=10)
    reader = subprocess.Popen(
        ptx("logs", run.layout.root), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert reader.stdout is not None and reader.stderr is not None
    assert reader.stdout.readline() == b"[0 node-0000] step 0 loss 5\n"
    reader.stdout.close()
    assert reader.wait(PATIENCE) == 141
    assert reader.stderr.read() == b""


def test_colours_go_to_a_terminal_only(run: FakeRun) -> None:
    run.log(0, "\x1b[32mgreen\x1b[0m \x1b[2J\x1b]0;title\x07gone", at=20)
    assert out(run, "--tail", "1") == ["[0 node-0000] green gone"]
    for env, shown in (
        ({}, "\x1b[36m[0 node-0000]\x1b[0m \x1b[32mgreen\x1b[0m gone\x1b[0m\n"),
        ({"NO_COLOR": "1"}, "[0 node-0000] green gone\n"),
        ({"TERM": "dumb"}, "[0 node-0000] green gone\n"),
    ):
        terminal = Terminal(ptx("logs", run.layout.root, "--tail", "1"), **env)
        assert (terminal.end(), terminal.shown) == (0, shown)


def test_following_shows_what_comes_and_ends_with_the_run(tmp_path: Path) -> None:
    run = FakeRun.create(tmp_path)
    with subprocess.Popen(
        ptx("logs", run.layout.root, "--follow"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        assert "demo-abc123 pending: Starting." in process.stderr.readline()
        run.start()
        for i in range(3):
            run.log(i % 2, f"line {i}", at=i)
            assert process.stdout.readline() == f"[{i % 2} node-0000] line {i}\n"
        run.log(1, "last", at=9)
        run.end(0, 0)
        assert process.stdout.read() == "[1 node-0000] last\n"
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("codes", [(0, 0), (0, 7)])
def test_following_ends_with_the_exit_code_of_the_run(
    tmp_path: Path, codes: tuple[int, int]
) -> None:
    run = FakeRun.create(tmp_path)
    run.start()
    run.log(0, "a line", at=0)
    run.end(*codes)
    done = run_ptx("logs", run.layout.root, "--follow")
    assert (done.returncode, done.stdout) == (int(any(codes)), "[0 node-0000] a line\n")
    assert ("next: ptx why demo-abc123" in done.stderr) == any(codes)


def test_levels_the_first_error_and_lines_told_once(tmp_path: Path) -> None:
    run = FakeRun.create(tmp_path)
    run.start()
    for rank in range(2):
        run.log(rank, f"step 1 of rank {rank}", at=rank / 10)
        run.log(rank, f"WARNING:root:slow {rank}", at=1 + rank / 10)
    trace = ("Traceback (most recent call last):", '  File "a.py", line 3', "KeyError: 'x'")
    run.log(1, *trace, mark="e", at=2)
    run.log(0, "RuntimeError: peer closed", mark="e", at=3)
    run.end(1, 1)
    shown = [f"[1 node-0000 err] {line}" for line in trace]
    assert out(run, "--level", "error") == [*shown, "[0 node-0000 err] RuntimeError: peer closed"]
    assert out(run, "--dedupe") == [
        "[0-1 \u00d72 ranks] step 1 of rank 0",
        "[0-1 \u00d72 ranks] WARNING:root:slow 0",
        *shown,
        "[0 node-0000 err] RuntimeError: peer closed",
    ]
    for follow in ([], ["--follow"]):
        done = run_ptx("logs", run.layout.root, "--first-error", *follow)
        assert done.stdout.splitlines() == shown and "ptx why" in done.stderr
        done = run_ptx("logs", run.layout.root, "--dedupe", *follow)
        assert done.stdout.splitlines() == out(run, "--dedupe")
    (first, *_) = [json.loads(line) for line in out(run, "--dedupe", "--json")]
    assert first["ranks"] == [0, 1] and first["text"] == "step 1 of rank 0"


def test_where_no_rank_printed_an_error_only_a_failed_run_has_something_to_explain(
    run: FakeRun, tmp_path: Path
) -> None:
    done = run_ptx("logs", run.layout.root, "--first-error")
    assert (done.stdout, done.stderr) == ("", "no rank printed an error\n")
    failed = FakeRun.create(tmp_path / "failed")
    failed.start()
    failed.log(0, "step 1")
    failed.end(7, 0)
    done = run_ptx("logs", failed.layout.root, "--first-error")
    assert done.stderr == f"no rank printed an error\nnext: ptx why {failed.layout.run_id}\n"


def test_of_lines_that_were_not_chosen_nothing_is_said(run: FakeRun) -> None:
    run.log(1, "Traceback (most recent call last):", "KeyError: 'x'", mark="e", at=9)
    for options in (["--rank", "0"], ["--node", "0", "--since", "2100-01-01"], ["--until", "2d"]):
        done = run_ptx("logs", run.layout.root, "--first-error", *options)
        assert (done.stdout, done.stderr) == ("", "none of the chosen lines is an error\n")
    run.log(0, "step 6", attempt=1)
    for options in ([], ["--attempt", "1"]):
        done = run_ptx("logs", run.layout.root, "--first-error", *options)
        assert (done.stdout, done.stderr) == ("", "no rank printed an error in attempt 1\n")
    done = run_ptx("logs", run.layout.root, "--first-error", "--attempt", "all")
    assert "KeyError" in done.stdout


def test_raw_is_every_byte_of_one_rank_and_never_for_a_terminal(run: FakeRun) -> None:
    path = run.layout.rank_log(0, 0, 1)
    stamp = stamp_of(run.began + 9).encode()
    path.write_bytes(stamp + b" O \r10%\n" + stamp + b" e \r20%\xff\x1b[2J\n")
    for follow in ([], ["--follow"]):
        done = subprocess.run(
            ptx("logs", run.layout.root, "--rank", "1", "--raw", *follow),
            cwd=ROOT, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, b"\r10%\r20%\xff\x1b[2J\n"), done.stderr
    terminal = Terminal(ptx("logs", run.layout.root, "--rank", "1", "--raw"))
    assert terminal.end() == 2 and "a terminal would obey it" in terminal.shown


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_raw_tells_what_is_missing_of_a_log_as_the_merge_does(
    run: FakeRun, follow: list[str]
) -> None:
    node = run.layout.node(0, 0)
    rows = [f"{stamp_of(run.began + i)} o line {i}\n" for i in range(6)]
    for path, number in (("rank-00001.log", 0), ("rank-00001.0003.log", 3)):
        (node / path).write_text("".join(rows[number : number + 2]))
    members = gzip.compress(rows[5].encode()) + b"no gzip at all"
    (node / "rank-00001.0004.log.gz").write_bytes(members)
    raw = run_ptx("logs", run.layout.root, "--rank", "1", "--raw", *follow)
    merged = run_ptx("logs", run.layout.root, "--rank", "1", *follow)
    told = [
        "part 1 to 2 of this log was dropped (logging.max)",
        "rank-00001.0004.log.gz is damaged from here on",
    ]
    assert [text for text in told if text in merged.stdout] == told
    assert raw.stdout.splitlines() == [f"line {i}" for i in (0, 1, 3, 4, 5)]
    assert (raw.returncode, raw.stderr.splitlines()) == (merged.returncode, told)


def test_raw_is_followed_into_the_next_attempt_unless_one_is_named(tmp_path: Path) -> None:
    run = FakeRun.create(tmp_path)
    run.start()
    run.log(1, "before the restart", at=1)
    command = ptx("logs", run.layout.root, "--rank", "1", "--raw", "--follow")
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as every,
        subprocess.Popen([*command, "--attempt", "0"], cwd=ROOT, stdout=subprocess.PIPE) as first,
    ):
        assert every.stdout is not None and first.stdout is not None
        for process in (every, first):
            assert process.stdout is not None
            assert process.stdout.readline() == b"before the restart\n"
        run.log(1, "as it ended", at=2)
        run.log(1, "after the restart", at=3, attempt=1)
        assert every.stdout.readline() == b"as it ended\n"
        assert every.stdout.readline() == b"after the restart\n"
        run.log(1, "and at the end", at=4, attempt=1)
        run.end(0, 0)
        assert (every.stdout.read(), every.wait(PATIENCE)) == (b"and at the end\n", 0)
        assert (first.stdout.read(), first.wait(PATIENCE)) == (b"as it ended\n", 0)


def test_before_the_first_line_it_says_what_the_run_does(tmp_path: Path) -> None:
    run = FakeRun.create(tmp_path)
    run.layout.scheduler_log.write_text("supervising\n")
    done = run_ptx("logs", run.layout.root)
    assert (done.returncode, done.stdout) == (0, "")
    assert "No rank of demo-abc123 has a log yet. It is pending: Starting." in done.stderr
    assert str(run.layout.scheduler_log) in done.stderr
    assert f"ptx status {run.layout.root}" in done.stderr  # its id leads nowhere from here


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_a_launch_that_failed_shows_the_launchers_last_lines(
    tmp_path: Path, follow: list[str]
) -> None:
    run = FakeRun.create(tmp_path)
    run.start()
    launcher_log = run.layout.node(0, 0) / "launcher.log"
    launcher_log.write_text("".join(f"line {i}\n" for i in range(99)) + "\x1b[2Jno such module\n")
    run.end(reason="setup-failed")
    done = run_ptx("logs", run.layout.root, *follow)
    assert done.stdout == ""
    assert "launch-error" in done.stderr and str(launcher_log) in done.stderr
    assert "  | no such module\n" in done.stderr
    assert "line 98" in done.stderr and "line 70\n" not in done.stderr


def test_a_log_that_may_not_be_read_is_an_error_and_no_traceback(run: FakeRun) -> None:
    path = run.layout.rank_log(0, 0, 1)
    path.unlink()
    path.mkdir()  # permissions do not stop root, a folder does
    done = run_ptx("logs", run.layout.root)
    assert done.returncode == 2
    assert str(path) in done.stderr and "Traceback" not in done.stderr
    assert os.path.isdir(path)


@pytest.mark.parametrize("second", ["rank-00000.0001.log", "rank-00000.log.gz"])
def test_a_log_in_parts_in_which_nothing_is_says_so(tmp_path: Path, second: str) -> None:
    run = FakeRun.create(tmp_path)
    run.start()
    run.log(0)
    run.layout.rank_log(0, 0, 0).with_name(second).write_bytes(b"")
    run.end(0, 0)
    done = run_ptx("logs", run.layout.root)
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing was printed" in done.stderr


NUMPY = "__import__('numpy')"
OLD_NUMPY = "types.SimpleNamespace(__version__='1.26.4', typing=types)"


@pytest.mark.parametrize(
    "found",
    ["None", "types.ModuleType('numpy')", OLD_NUMPY],
    ids=["none", "broken", "old"],
)
def test_large_logs_are_shown_the_same_without_a_good_numpy(tmp_path: Path, found: str) -> None:
    """Who only submits may have none. The text with an accent keeps one block from the fast way."""
    run = FakeRun.create(tmp_path)
    run.start()
    for rank in range(2):
        texts = [f"step {i} {'#' * (i % 80)}" for i in range(60_000)]
        run.log(rank, "loss \u00e9", *texts, at=rank / 1e7, mark="oe"[rank])
    run.end(0, 0)
    shown = []
    for numpy, is_fast in ((NUMPY, "True"), (found, "False")):
        way = (
            f"import atexit, sys, types; numpy = sys.modules['numpy'] = {numpy}\n"
            "sys.modules.setdefault('numpy.typing', getattr(numpy, 'typing', None))\n"
            "fast = 'orchestrator.logs.labelled'\n"
            "atexit.register(lambda: print(fast in sys.modules, file=sys.stderr))\n"
            "from orchestrator.cli.main import main; main()"
        )
        argv = [sys.executable, "-c", way, "logs", str(run.layout.root)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.split()) == (0, [is_fast])
        shown.append(done.stdout)
    assert shown[0] == shown[1]
    assert len(shown[0].splitlines()) == 120_002
