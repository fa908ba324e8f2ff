"""A forked rank is to its test what a started one is."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from support.training_ranks import run

pytestmark = pytest.mark.slow

SEES = """
import json, os, sys, threading
print(json.dumps({
    "argv": sys.argv, "main": __name__, "file": __file__, "path": sys.path[0], "cwd": os.getcwd(),
    "rank": os.environ["RANK"], "given": os.environ.get("GIVEN"),
    "plan": os.environ.get("PTX_PLAN"),
    "hash": hash("a set of strings"), "threads": len(os.listdir("/proc/self/task")),
    "torch": "torch" in sys.modules, "deepspeed": "deepspeed" in sys.modules,
}))
threading.Thread(target=lambda: print("the thread's last word")).start()
import atexit; atexit.register(lambda: print("at exit", file=sys.stderr))
"""
ENDS = """
import os, sys, time
how = sys.argv[1 + int(os.environ["RANK"])]
if how == "exit": sys.exit(7)
if how == "raise": raise RuntimeError("no such shard")
if how == "kill": os.kill(os.getpid(), 9)
if how == "stay": time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rank.py").write_text(SEES)
    (tmp_path / "ends.py").write_text(ENDS)
    monkeypatch.chdir(tmp_path)


def test_it_has_arguments_environment_and_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTX_PLAN", "another test's")
    ranks = run(tmp_path / "rank.py", "a b", "$c", world_size=2, GIVEN="é")
    for number, rank in enumerate(ranks):
        assert (rank.code, rank.err) == (0, "at exit\n")
        first, last = rank.out.splitlines()
        assert last == "the thread's last word"
        seen = json.loads(first)
        assert (
            seen["argv"] == [seen["file"], "a b", "$c"] == [str(tmp_path / "rank.py"), "a b", "$c"]
        )
        assert (seen["main"], seen["path"], seen["cwd"]) == (
            "__main__",
            str(tmp_path),
            str(tmp_path),
        )
        assert (seen["rank"], seen["given"], seen["plan"]) == (str(number), "é", None)
        assert (seen["threads"], seen["torch"], seen["deepspeed"]) == (1, True, False)
    assert len({json.loads(rank.out.splitlines()[0])["hash"] for rank in ranks}) == 2


def test_its_end_is_told_as_it_was(tmp_path: Path) -> None:
    ended, raised, killed = run(tmp_path / "ends.py", "exit", "raise", "kill", world_size=3)
    assert (ended.code, raised.code, killed.code) == (7, 1, -signal.SIGKILL)
    assert raised.err.endswith("RuntimeError: no such shard\n")


def test_one_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="pid") as caught:
        run(tmp_path / "ends.py", "stay", world_size=1, within=1)
    (pid,) = re.findall(r"pid (\d+)", str(caught.value))
    assert not Path("/proc", pid).exists()
    assert run(tmp_path / "ends.py", "exit", world_size=1)[0].code == 7
