"""Ranks that stand still are seen, say where they stand, and are ended; those that work are not."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.node_run import LAUNCHING, SHIM, NodeRun, bash_launcher, until

from orchestrator.agent.first_step import silence_allowed
from orchestrator.agent.leftover import Leftover
from orchestrator.agent.notice import read_notice
from orchestrator.agent.processes import bearers, process_table

pytestmark = pytest.mark.slow

Make = Callable[..., NodeRun]
STUCK = """
import os, time
def load():
    time.sleep(3600)
print('ready', flush=True)
load()
"""
BUSY = "import time\nfor n in range(600):\n    print(n, flush=True)\n    time.sleep(0.1)\n"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    runs: list[NodeRun] = []

    def build(rank: str, launch: str | None = None, **plan: Any) -> NodeRun:
        run = NodeRun(tmp_path, rank, launch, **plan)
        run.plan |= {"entrypoint": ["python", "rank.py"], "workdir": str(run.bundle)}
        (run.bundle / "plan.json").write_text(json.dumps(run.plan))
        runs.append(run)
        return run

    yield build
    for run in runs:
        if run.agent is not None and run.agent.poll() is None:
            run.agent.terminate()
            run.agent.wait(60)


def test_a_script_that_knows_nothing_of_ptx_hangs_when_it_prints_nothing_for_long(
    make: Make,
) -> None:
    run = make(STUCK, restart={"hang_after": 2}).start()
    assert run.wait() == 1
    ended = run.ended()
    assert (ended["reason"], ended["message"]) == ("hang", "no rank here printed anything for 2 s")
    assert {record["signal"] for record in run.records().values()} == {6}
    for log in run.logs().values():
        assert "rank.py" in log
        assert "line 4 in load" in log
    assert not run.marked()


def test_one_that_goes_on_printing_does_not_hang(make: Make) -> None:
    run = make(BUSY.replace("600", "40"), restart={"hang_after": 2}).start()
    assert run.wait() == 0
    assert run.ended()["reason"] == "completed"


FULL = """
import os, resource, time
def limit(size):
    resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
limit(10)
for n in range(70):
    print(n, flush=True)
    time.sleep(0.1)
limit(resource.RLIM_INFINITY)
"""


def test_one_whose_lines_find_no_room_on_the_disk_does_not_hang(make: Make) -> None:
    run = make(FULL, restart={"hang_after": 4}).start()
    assert run.wait() == 0, run.story()
    assert run.ended()["reason"] == "completed"
    assert all(record["lost_bytes"] > 0 for record in run.records().values())


STEPS = "import os, time\nopen(os.environ['PTX_STEP_FILE'], 'w').close()\nprint('step 1')\n"


@pytest.mark.parametrize(("rank", "nodes"), [(STEPS, 1), (STEPS, 2), ("print('done')\n", 1)])
def test_ranks_that_have_all_ended_well_do_not_hang_while_their_launcher_waits(
    make: Make, rank: str, nodes: int
) -> None:
    """torchrun's waits for the other nodes, one of which may write the model for long."""
    launch = bash_launcher() + 'sleep 15\n: >"$PTX_NODE_DIR/waited"\n'
    run = make(rank, launch, nodes=nodes, restart={"hang_after": 4})
    assert run.start().wait() == 0
    assert run.ended()["reason"] == "completed"
    assert (run.node / "waited").exists()


def impatient(run: NodeRun) -> NodeRun:
    """With an agent that has a second where it has ten minutes."""
    path = run.bundle / "agent.pyz"
    with zipfile.ZipFile(path) as archive:
        texts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in texts if name.endswith("leftover.py"))
    assert b"_LEAST = 600.0" in texts[name]
    texts[name] = texts[name].replace(b"_LEAST = 600.0", b"_LEAST = 1.0")
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)
    return run


def test_a_launcher_that_stays_when_its_ranks_have_done_their_work_is_ended(make: Make) -> None:
    run = make(STEPS, bash_launcher() + "sleep 3600\n", restart={"hang_after": 1})
    assert impatient(run).start().wait() == 0
    ended = run.ended()
    assert (ended["reason"], ended["ranks"]) == ("completed", {"0": 0, "1": 0})
    assert "the launcher goes on" in ended["message"]
    assert not run.marked()


Asks = Callable[[Leftover, int], "int | None"]


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> Asks:
    """At which second of so many the launcher is to be ended, once its own ranks have."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def ask(leftover: Leftover, seconds: int) -> int | None:
        for second in range(seconds):
            clock[0] += 1.0
            if leftover.poll(ended=True):
                return second
        return None

    return ask


def test_a_launcher_waits_for_the_ranks_of_other_nodes_and_has_its_time_after_them(
    tmp_path: Path, asks: Asks
) -> None:
    plan = {"procs_per_node": 2, "nodes": 2, "restart": {"hang_after": 60}}
    leftover = Leftover(tmp_path / "node-0000", 0, plan)
    other = tmp_path / "node-0001"
    other.mkdir()
    (other / "rank-00002.exit.json").touch()
    assert asks(leftover, 5000) is None, "rank 3 still writes the model"
    assert not leftover.over
    (other / "rank-00003.exit.json").touch()
    assert asks(leftover, 60) is None
    assert leftover.over, "nobody is left who could stand still"
    assert (asks(leftover, 5000) or 0) >= 500


@pytest.mark.parametrize(("after", "least"), [(60, 600), (3600, 3600), (None, None)])
def test_a_launcher_that_stays_has_ten_minutes_or_hang_after_where_that_is_set(
    after: float | None, least: int | None, tmp_path: Path, asks: Asks
) -> None:
    plan = {"procs_per_node": 1, "nodes": 1, "restart": {"hang_after": after}}
    asked = asks(Leftover(tmp_path / "node-0000", 0, plan), 5000)
    assert (asked is None) if least is None else (asked or 0) >= least


def test_one_that_reports_its_steps_is_not_judged_by_what_it_prints(make: Make) -> None:
    quiet = "import os, time\nprint('loading')\ntime.sleep(4)\nos.environ['PTX_STEP_FILE']\n"
    run = make(quiet, restart={"hang_after": 1}).start()
    assert run.wait() == 0


def test_one_that_only_speaks_of_the_step_file_is_judged_by_what_it_prints(make: Make) -> None:
    run = make(f"# PTX_STEP_FILE is not touched here\n{STUCK}", restart={"hang_after": 2}).start()
    assert run.wait() == 1
    assert run.ended()["message"] == "no rank here printed anything for 2 s"


def test_a_touched_step_file_shows_that_steps_are_reported(make: Make) -> None:
    """Whatever the text of the script: here a module that it imports does it."""
    run = make("import stepping\n", restart={"hang_after": 2})
    loop = "while time.time() < begun + {}:\n    {}\n    time.sleep(0.2)\n"
    touches = "open(os.environ['PTX_STEP_FILE'], 'w').close()"
    (run.bundle / "stepping.py").write_text(
        "import os, time\nprint('ready', flush=True)\nbegun = time.time()\n"
        + loop.format(4, touches)
        + loop.format(60, "print('no step', flush=True)")
    )
    assert run.start().wait() == 1
    assert run.ended()["message"] == "no rank here made a step for 2 s"
    assert "no step" in run.logs()["rank-00000.log"]


@pytest.mark.parametrize("trap", ["", "trap : EXIT; "])  # for which bash has a handler
def test_the_stack_of_a_rank_below_a_shell_is_taken(trap: str, make: Make) -> None:
    wrapped = f"bash -c '{trap}{sys.executable} $PTX_BUNDLE/rank.py; exit $?'"
    launch = f"{LAUNCHING}RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 {SHIM} {wrapped}\n"
    run = make(STUCK, launch, ranks=1, restart={"hang_after": 2}).start()
    assert run.wait() == 1
    assert "line 4 in load" in run.logs()["rank-00000.log"]
    assert run.records()[0]["exit_code"] == 134


def test_ranks_without_a_handler_are_ended_all_the_same(make: Make) -> None:
    run = make(STUCK, restart={"hang_after": 2}).start(PYTHONFAULTHANDLER="")
    assert run.wait() == 1
    assert run.ended()["reason"] == "hang"
    assert {record["signal"] for record in run.records().values()} == {15}
    assert not run.marked()


def notice(run: NodeRun, **more: Any) -> None:
    """What the agent of another node leaves."""
    now = time.time()
    line = {"v": 1, "node": 1, "t": now, "at": now + 1, **more}
    (run.node.parent / "hang.json").write_text(json.dumps(line))


def test_a_node_whose_ranks_still_talk_takes_their_stacks_with_the_others(make: Make) -> None:
    run = make(BUSY, nodes=2, restart={"hang_after": 60}).start()
    until(lambda: len(run.logs()) == 2 and all(run.logs().values()), "words", run.story)
    notice(run)
    assert run.wait() == 1
    ended = run.ended()
    assert (ended["reason"], ended["message"]) == ("hang", "the ranks of node 1 stand still")
    assert {record["signal"] for record in run.records().values()} == {6}


@pytest.mark.parametrize("more", [{"t": 1.0}, {"at": "soon"}, {"node": None}])
def test_a_notice_of_an_earlier_start_or_a_damaged_one_means_nothing(
    more: dict[str, Any], make: Make
) -> None:
    run = make(BUSY.replace("600", "40"), nodes=2, restart={"hang_after": 4}).start()
    until(lambda: len(run.logs()) == 2 and all(run.logs().values()), "words", run.story)
    notice(run, **more)
    assert run.wait() == 0


def test_a_notice_is_seen_at_the_next_look_where_nfs_remembers_that_there_was_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a client asks anew once somebody opens the folder."""
    absent: set[Path] = set()
    opened, read = os.open, Path.read_bytes

    def open_folder(path: Any, flags: int, *more: Any) -> int:
        absent.clear()
        return opened(path, flags, *more)

    def read_from_memory(path: Path) -> bytes:
        if path in absent:
            raise FileNotFoundError(path)
        if not path.exists():
            absent.add(path)
        return read(path)

    monkeypatch.setattr(os, "open", open_folder)
    monkeypatch.setattr(Path, "read_bytes", read_from_memory)
    assert read_notice(tmp_path) is None
    (tmp_path / "hang.json").write_text('{"v":1,"node":1,"t":100,"at":106}')
    with pytest.raises(FileNotFoundError):
        (tmp_path / "hang.json").read_bytes()
    assert read_notice(tmp_path) == (1, 100.0, 106.0)


def test_a_node_that_sees_its_ranks_stand_still_tells_the_others_first(make: Make) -> None:
    run = make(STUCK, nodes=2, restart={"hang_after": 1}).start()
    assert run.wait() == 1
    told = json.loads((run.node.parent / "hang.json").read_text())
    assert told["node"] == 0
    assert all(record["ended"] >= told["at"] for record in run.records().values())


WORDS = "import time\nprint('ready', flush=True)\ntime.sleep(12)\n"


def test_ranks_are_silent_while_those_of_another_node_print(make: Make) -> None:
    run = make(WORDS, nodes=2, restart={"hang_after": 5}).start()
    other = run.node.with_name("node-0001")
    until(lambda: len(run.logs()) == 2, "logs", run.story)
    other.mkdir()
    assert run.agent is not None
    while run.agent.poll() is None:
        with (other / "rank-00003.log").open("a") as log:
            log.write("a step\n")
        time.sleep(0.2)
    assert run.wait() == 0


def test_words_of_another_node_that_end_are_a_hang(make: Make) -> None:
    run = make(WORDS.replace("12", "60"), nodes=2, restart={"hang_after": 2}).start()
    until(lambda: len(run.logs()) == 2, "logs", run.story)
    other = run.node.with_name("node-0001")
    other.mkdir()
    (other / "rank-00003.log").write_text("a step\n")
    assert run.wait() == 1
    assert run.ended()["reason"] == "hang"


def test_a_node_that_is_not_the_first_judges_nobody_by_what_it_prints(make: Make) -> None:
    run = make(WORDS.replace("12", "4"), nodes=2, restart={"hang_after": 1})
    assert run.start(PTX_NODE_RANK="1").wait() == 0
    assert not (run.node.parent / "hang.json").exists()


def test_time_in_which_the_job_was_suspended_is_no_standstill(make: Make) -> None:
    run = make(BUSY.replace("600", "40"), restart={"hang_after": 4}).start()
    until(lambda: len(run.logs()) == 2 and all(run.logs().values()), "words", run.story)
    assert run.agent is not None
    ranks = [process.pid for process in bearers({run.mark}, process_table().values())]
    assert ranks
    for pid in (run.agent.pid, *ranks):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(6)
    os.kill(run.agent.pid, signal.SIGCONT)
    time.sleep(0.8)  # it looks at ranks that have had no time to print
    for pid in ranks:
        os.kill(pid, signal.SIGCONT)
    assert run.wait() == 0
    assert run.ended()["reason"] == "completed"


HALF_AN_HOUR, AT_ONCE, NEVER = 1800.0, 60.0, None


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("import orchestrator.training", NEVER),
        ("def main():\n    from orchestrator.training.loop import Trainer", NEVER),
        ("from orchestrator import training", NEVER),
        ("importlib.import_module('orchestrator.training.loop')", NEVER),
        ("open(os.environ['PTX_STEP_FILE'], 'w')", HALF_AN_HOUR),
        ("import torch", AT_ONCE),
        ("# import orchestrator.training\n# PTX_STEP_FILE", AT_ONCE),
        ("'PTX_STEP_FILE'", AT_ONCE),
        ("import orchestrator_training, my.orchestrator.training", AT_ONCE),
        ("from .orchestrator.training import x", AT_ONCE),
        ("no python: orchestrator.training", NEVER),
        ("no python: PTX_STEP_FILE", HALF_AN_HOUR),
        ("no python at all", AT_ONCE),
        ("", AT_ONCE),
    ],
)
def test_how_long_a_script_may_be_silent_is_known_by_what_it_does(
    text: str, allowed: float | None, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(text)
    plan = {"entrypoint": ["{python}", "-u", "train.py", "--x"], "workdir": str(tmp_path)}
    assert silence_allowed(plan, 60) == allowed


def test_the_first_step_has_ten_times_as_long_as_the_others(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("x = 'PTX_STEP_FILE' in os.environ")
    plan = {"entrypoint": ["python", "train.py"], "workdir": str(tmp_path)}
    assert silence_allowed(plan, 600) == 6000


@pytest.mark.parametrize("entrypoint", [["python", "-m", "mine"], ["python", "gone.py"], []])
def test_what_is_no_script_is_judged_by_its_steps(entrypoint: list[str], tmp_path: Path) -> None:
    plan = {"entrypoint": entrypoint, "workdir": str(tmp_path)}
    assert silence_allowed(plan, 60) is None
