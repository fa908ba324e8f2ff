"""One real shim with a real rank below it: what it logs, records and survives."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.node_run import is_alive, until
from support.shim_rank import Rank

from orchestrator.agent.stamp import strip


@pytest.fixture
def rank(tmp_path: Path) -> Rank:
    return Rank(tmp_path)


def test_every_byte_of_both_streams_is_in_the_log(rank: Rank) -> None:
    code = (
        "import os, random\n"
        "r = random.Random(1)\n"
        "for i in range(300):\n"
        "    os.write(r.choice((1, 2)), r.randbytes(r.randrange(1, 9000)))\n"
    )
    wanted = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert rank.python(code) == 0
    assert strip(rank.log, b"o") == wanted.stdout
    assert strip(rank.log, b"e") == wanted.stderr
    assert rank.record["log_bytes"] == len(rank.log)
    assert rank.record["lost_bytes"] == 0


def test_a_line_far_longer_than_a_block_arrives_whole(rank: Rank) -> None:
    assert rank.python("print('x' * 3_000_000)\nprint('y')") == 0
    assert strip(rank.log, b"o") == b"x" * 3_000_000 + b"\ny\n"


def test_a_prompt_shows_before_its_newline_comes(rank: Rank) -> None:
    process = rank.popen("sh", "-c", "printf 'name? '; sleep 3600")
    try:
        until(lambda: rank.log_path.exists() and b" O name? \n" in rank.log, "the prompt")
    finally:
        process.kill()
        process.communicate()


def test_a_progress_bar_that_never_pauses_shows(rank: Rank) -> None:
    code = "import sys, time\nwhile True:\n sys.stdout.write('\\r1%')\n time.sleep(0.02)"
    process = rank.popen(sys.executable, "-c", code)
    try:
        until(lambda: rank.log_path.exists() and b" O \r1%" in rank.log, "the bar")
    finally:
        process.kill()
        process.communicate()


def test_other_output_may_come_between_the_parts_of_a_line(rank: Rank) -> None:
    code = (
        "import os, sys, time\n"
        "def until(seen):\n"
        "    while seen not in open(sys.argv[1], 'rb').read(): time.sleep(0.01)\n"
        "os.write(1, b'ab'); until(b' O ab')\n"
        "os.write(2, b'err\\n'); until(b' e err')\n"
        "os.write(1, b'cd\\n')"
    )
    assert rank.run(sys.executable, "-c", code, str(rank.log_path)) == 0
    assert rank.texts() == ["O ab", "e err", "o cd"]


def test_the_exit_record_tells_how_it_failed(rank: Rank) -> None:
    assert rank.python("print('a')\nraise ValueError('no shard')") == 1
    record = rank.record
    assert (record["exit_code"], record["signal"]) == (1, None)
    assert record["exception"] == {"type": "ValueError", "message": "no shard"}
    assert record["last_lines"][0] == "a"
    assert record["last_lines"][-1] == "ValueError: no shard"
    assert (record["v"], record["run_id"], record["rank"], record["world_size"]) == (1, "r", 1, 2)
    assert record["started"] <= record["ended"]
    assert record["max_rss_bytes"] > 1 << 20
    assert record["device"] is None


def test_the_last_lines_are_twenty_and_the_newest(rank: Rank) -> None:
    rank.python("for i in range(100): print(i)")
    assert rank.record["last_lines"] == [str(i) for i in range(80, 100)]


def test_a_signal_is_recorded_and_told_as_a_shell_does(rank: Rank) -> None:
    assert rank.python("import os; os.kill(os.getpid(), 9)") == 137
    assert (rank.record["exit_code"], rank.record["signal"]) == (None, 9)


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [("no-such-program", 127, "No such file"), ("/", 126, "Permission denied")],
)
def test_a_program_that_cannot_run_says_so(rank: Rank, program: str, code: int, words: str) -> None:
    assert rank.run(program) == code
    assert rank.record["exit_code"] == code
    assert words in rank.record["last_lines"][-1]
    assert program in rank.texts()[-1]
    assert words.encode() in rank.stderr


@pytest.mark.slow
def test_a_grandchild_that_keeps_the_pipe_does_not_keep_the_shim(rank: Rank) -> None:
    assert rank.run("sh", "-c", "sleep 3600 & echo $!") == 0
    pid = int(rank.texts()[0][2:])
    assert is_alive(pid)  # ending it is the agent's work
    os.kill(pid, signal.SIGKILL)


def test_output_of_a_grandchild_right_after_the_exit_is_kept(rank: Rank) -> None:
    assert rank.run("sh", "-c", "(sleep 0.3; echo late) &") == 0
    assert rank.texts() == ["o late"]


STALLED = """
import contextlib, os, sys
from orchestrator.agent import rank_log, shim

append, stalls = rank_log.RankLog._append, int(sys.argv[1])

def stalled(log, parts):
    # A file server that takes its time: until the rank, and then what it left behind, has ended.
    global stalls
    if parts and stalls:
        stalls -= 1
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    return append(log, parts)

rank_log.RankLog._append = stalled
shim._DRAIN = 0.0
sys.exit(shim.run_shim(sys.argv[2:]))
"""


def stalled(rank: Rank, stalls: int, *argv: str) -> int:
    """One whose log stalls, and which waits no moment for more than was written."""
    command = [sys.executable, "-S", "-c", STALLED, str(stalls), *argv]
    env = rank.env | {"PYTHONPATH": str(rank.archive)}
    return subprocess.run(command, env=env, timeout=60).returncode


def test_what_a_rank_wrote_before_its_end_is_kept_however_slow_the_log(rank: Rank) -> None:
    code = (
        "import sys\n"
        "for i in range(5000): sys.stderr.write('W' * 99 + '\\n')\n"
        "raise ValueError('the reason of it all')"
    )
    assert stalled(rank, 1, sys.executable, "-c", code) == 1
    texts = rank.texts()
    assert texts.count("e " + "W" * 99) == 5000
    assert texts[-1] == "e ValueError: the reason of it all"
    record = rank.record
    assert record["exception"] == {"type": "ValueError", "message": "the reason of it all"}
    assert record["last_lines"][-1] == "ValueError: the reason of it all"
    assert (record["log_bytes"], record["lost_bytes"]) == (len(rank.log), 0)


STOPPED = """
import os, sys, time
from orchestrator.agent import rank_log, shim

append = rank_log.RankLog._append

def stopped(log, parts):
    # A file server that takes one block, once the rank has ended, and then no more.
    if parts and log.log_bytes:
        time.sleep(3600)
    if parts:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    return append(log, parts)

rank_log.RankLog._append = stopped
sys.exit(shim.run_shim(sys.argv[1:]))
"""


def test_a_shim_that_is_killed_while_its_log_takes_long_has_left_the_exit_record(
    rank: Rank,
) -> None:
    code = (
        "import sys\n"
        "for i in range(5000): sys.stderr.write('W' * 99 + '\\n')\n"
        "raise ValueError('the reason of it all')"
    )
    command = [sys.executable, "-S", "-c", STOPPED, sys.executable, "-c", code]
    shim = subprocess.Popen(command, env=rank.env | {"PYTHONPATH": str(rank.archive)})
    try:
        until((rank.node / "rank-00001.exit.json").exists, "the exit record")
        assert rank.record["exit_code"] == 1
        assert rank.record["exception"]["message"] == "the reason of it all"
        assert len(rank.log) < 5000 * 100
    finally:
        shim.kill()
        shim.wait()


def test_what_a_grandchild_wrote_while_the_log_was_slow_is_kept(rank: Rank) -> None:
    script = "seq 60000; (sleep 0.2; seq 60000; echo late) &"
    assert stalled(rank, 3, "sh", "-c", script) == 0
    assert rank.texts()[-1] == "o late"


def test_a_silent_grandchild_does_not_keep_a_shim_that_has_read_all(rank: Rank) -> None:
    assert stalled(rank, 1, "sh", "-c", "seq 30000; sleep 3600 & echo $!") == 0
    pid = int(rank.texts()[-1][2:])
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


def test_sigterm_reaches_the_rank_though_the_agent_blocked_it_and_sigusr2_does_not(
    rank: Rank,
) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
    try:
        code = "import os, signal\nos.kill(os.getpid(), 12)\nprint('on')\nos.kill(os.getpid(), 15)"
        assert rank.python(code) == 143
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR2})
    assert rank.texts() == ["o on"]
    assert rank.record["signal"] == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_to_the_shim_alone_leaves_it_at_work(rank: Rank, number: int) -> None:
    process = rank.popen("sh", "-c", "echo ready; sleep 0.5; echo done")
    until(lambda: rank.log_path.exists() and b"ready" in rank.log, "ready")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert rank.texts() == ["o ready", "o done"]


def test_killing_the_shim_kills_the_rank(rank: Rank) -> None:
    process = rank.popen("sh", "-c", "echo $$; exec sleep 3600")
    until(lambda: rank.log_path.exists() and rank.log.endswith(b"\n"), "the pid")
    pid = int(rank.texts()[0][2:])
    assert is_alive(pid)
    process.kill()
    process.communicate()
    until(lambda: not is_alive(pid), "the rank's end")


@pytest.mark.parametrize("shared", [False, True])
def test_files_have_the_folders_privacy_whatever_the_umask(rank: Rank, shared: bool) -> None:
    rank.node.chmod(0o2770 if shared else 0o700)
    assert rank.run("true", umask=0o000 if shared is False else 0o077) == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in rank.node.iterdir()}
    wanted = 0o660 if shared else 0o600
    assert modes == {"rank-00001.log": wanted, "rank-00001.exit.json": wanted}


def test_a_full_disk_does_not_stop_the_rank_and_is_counted(rank: Rank) -> None:
    rank.log_path.symlink_to("/dev/full")
    assert rank.python("for i in range(20_000): print(i)\nraise SystemExit(5)") == 5
    record = rank.record
    assert record["exit_code"] == 5
    assert record["log_bytes"] == 0
    assert record["lost_bytes"] > 20_000 * 30
    assert record["last_lines"][-1] == "19999"
    assert rank.stderr.count(b"cannot write") == 1
    assert b"No space left on device" in rank.stderr


def test_writing_goes_on_when_the_disk_works_again(rank: Rank, tmp_path: Path) -> None:
    stop, go = tmp_path / "stop", tmp_path / "go"
    code = (
        "import os, sys, time\n"
        "i = 0\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n"
        "while not os.path.exists(sys.argv[1]):\n"
        "    print(i); i += 1; time.sleep(0.0005)\n"
        "print('end')"
    )
    process = rank.popen(sys.executable, "-c", code, str(stop), str(go))
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    go.touch()
    log = rank.log_path
    until(lambda: log.exists() and log.stat().st_size == 10_000, "the limit is met")
    time.sleep(0.1)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
    until(lambda: rank.log_path.stat().st_size > 12_000, "writing goes on")
    stop.touch()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stderr.count(b"cannot write") == 1
    record = rank.record
    texts = rank.texts()
    assert texts[-1] == "o end"
    notices = [text for text in texts if text.startswith("e ptx: ")]
    lost = [int(number) for text in notices for number in re.findall(r"(\d+) bytes", text)]
    assert sum(lost) == record["lost_bytes"] > 0
    assert all(
        re.fullmatch(r"o (\d+|end)|e ptx: .*|", text) for text in texts if text not in notices
    )


def test_a_log_that_cannot_be_made_does_not_stop_the_rank(rank: Rank) -> None:
    rank.log_path.mkdir()
    assert rank.python("print('x')") == 0
    assert rank.record["lost_bytes"] > 0
    assert b"Is a directory" in rank.stderr


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, [None, "1", "1", None]),
        ({"PTX_DEVICES": "4,7", "CUDA_VISIBLE_DEVICES": "0,1"}, ["4,7", "1", "1", "7"]),
        ({"PTX_DEVICES": "GPU-a,GPU-b"}, ["GPU-a,GPU-b", "1", "1", "GPU-b"]),
        ({"PTX_DEVICES": "MIG-a,MIG-b"}, ["MIG-b", "0", "1", "MIG-b"]),
    ],
)
def test_the_rank_sees_its_devices(
    rank: Rank, env: dict[str, str], wanted: list[str | None]
) -> None:
    rank.env |= env
    code = (
        "import json, os\nprint(json.dumps([os.environ.get(n) for n in "
        "('CUDA_VISIBLE_DEVICES', 'LOCAL_RANK', 'PTX_LOCAL_RANK')]))"
    )
    assert rank.python(code) == 0
    assert [*json.loads(rank.texts()[0][2:]), rank.record["device"]] == wanted


def test_arguments_and_environment_arrive_byte_exact(rank: Rank) -> None:
    hostile = [
        "$(touch x)",
        "`id`",
        "a\nb",
        "'",
        '"',
        "-n",
        "é😀",
        "",
        "a,b;c",
        b"\xff".decode("utf-8", "surrogateescape"),
    ]
    rank.env["HOSTILE"] = "\n".join(hostile)
    code = "import os, sys\nprint([os.fsencode(a) for a in sys.argv[1:]], os.environb[b'HOSTILE'])"
    assert rank.run(sys.executable, "-c", code, *hostile) == 0
    encoded = [os.fsencode(word) for word in hostile]
    assert rank.texts() == [f"o {encoded} {os.fsencode(rank.env['HOSTILE'])!r}"]


def test_unbuffered_and_faulthandler_unless_the_person_says_otherwise(rank: Rank) -> None:
    rank.env["PYTHONFAULTHANDLER"] = ""
    rank.env.pop("PYTHONUNBUFFERED", None)
    assert rank.run("sh", "-c", 'echo "[$PYTHONUNBUFFERED][$PYTHONFAULTHANDLER]"') == 0
    assert rank.texts() == ["o [1][]"]


def test_a_restarted_rank_appends_to_the_log_and_replaces_the_record(rank: Rank) -> None:
    assert rank.python("print('first'); raise SystemExit(3)") == 3
    seen: Callable[[], bool] = (rank.node / "rank-00001.exit.json").exists
    process = rank.popen("sh", "-c", "echo second; sleep 3600")
    try:
        until(lambda: b"second" in rank.log, "the second start")
        assert not seen()
    finally:
        process.kill()
        process.communicate()
    assert rank.texts() == ["o first", "o second"]


def test_closed_standard_descriptors_are_met(rank: Rank) -> None:
    shim = f"{sys.executable} -I -S {rank.archive} shim -- sh -c 'echo out; echo err >&2'"
    done = subprocess.run(["bash", "-c", f"exec <&- >&- 2>&-; {shim}"], env=rank.env)
    assert done.returncode == 0
    assert sorted(rank.texts()) == ["e err", "o out"]


def test_a_reader_of_stderr_that_is_gone_does_not_end_the_rank(rank: Rank) -> None:
    rank.log_path.symlink_to("/dev/full")
    process = rank.popen("sh", "-c", "echo lost; sleep 0.3; exit 6")
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(60) == 6
    assert rank.record["lost_bytes"] > 0


def test_without_an_agent_the_shim_says_what_it_misses(rank: Rank) -> None:
    del rank.env["PTX_NODE_DIR"]
    assert rank.run("true") == 2
    assert rank.stderr.startswith(b"ptx: the shim finds no PTX_NODE_DIR")


@pytest.mark.slow
def test_an_orphaned_rank_that_blocks_sigterm_while_it_saves_has_the_whole_grace(
    rank: Rank, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text('{"grace_seconds": 60}')
    agent = subprocess.Popen(["sleep", "3600"])
    rank.env |= {"PTX_PLAN": str(tmp_path / "plan.json"), "PTX_AGENT_PID": str(agent.pid)}
    code = (
        "import signal, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {15}); print('saving', flush=True)\n"
        "while 15 not in signal.sigpending(): time.sleep(0.01)\n"
        "time.sleep(2); print('saved')\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, {15}); time.sleep(3600)"
    )
    process = rank.popen(sys.executable, "-c", code)
    try:
        until(lambda: rank.log_path.exists() and b"saving" in rank.log, "the save")
        agent.kill()
        agent.wait()
        assert process.wait(60) == 143
    finally:
        agent.kill()
        process.kill()
        process.communicate()
    assert rank.texts() == ["o saving", "o saved"]


def test_a_shim_whose_agent_is_another_process_by_now_ends_its_rank(rank: Rank) -> None:
    rank.env |= {"PTX_AGENT_PID": str(os.getpid()), "PTX_AGENT_START": "1"}
    assert rank.run("sleep", "3600") == 143
    assert rank.record["orphaned_by"] == "agent"
