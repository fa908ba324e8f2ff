"""Finding a run by what a person types."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchestrator.errors import Conflict, NotFound, UserError
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import RunRecord
from orchestrator.runs.registry import all_runs, register, resolve
from orchestrator.runs.root import registry_folder


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PTX_RUNS", str(tmp_path / "root"))


def make(root: Path, run_id: str, created: float = 1.0, *, registered: bool = True) -> RunLayout:
    layout = RunLayout(root / run_id)
    layout.root.mkdir(parents=True)
    record = RunRecord(run_id, run_id[:-7], created, "local", "torchrun", 1, 1, 1)
    layout.record.write_text(record.to_json())
    if registered:
        register(layout)
    return layout


def test_a_run_is_found_from_anywhere_by_id_prefix_age_and_path(tmp_path: Path) -> None:
    old = make(tmp_path / "elsewhere", "ddp-aaaaaa", created=1)
    new = make(tmp_path / "else where", "ddp-bbbbbb", created=2)
    for text in ("ddp-aaaaaa", "ddp-a", "@last~1", str(old.root), f"{old.root}/"):
        assert resolve(text) == old
    for text in ("ddp-bbbbbb", "ddp-b", "@last", "@last~0"):
        assert resolve(text) == new
    assert [layout for _, layout in all_runs()] == [new, old]


def test_a_run_in_the_current_root_needs_no_row(tmp_path: Path) -> None:
    layout = make(tmp_path / "root", "ddp-aaaaaa", registered=False)
    assert resolve("ddp") == layout
    assert resolve("@last") == layout


def test_a_given_root_limits_the_search(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "ddp-aaaaaa")
    here = make(tmp_path / "here", "ddp-bbbbbb", registered=False)
    assert resolve("ddp", root=tmp_path / "here") == here
    assert len(all_runs(root=tmp_path / "here")) == 1


def test_an_exact_id_wins_over_longer_ones(tmp_path: Path) -> None:
    exact = make(tmp_path / "root", "ddp-aaaaaa")
    make(tmp_path / "root", "ddp-aaaaaa-bbbbbb")
    assert resolve("ddp-aaaaaa") == exact


def test_an_ambiguous_prefix_lists_what_it_fits(tmp_path: Path) -> None:
    for suffix in ("aaaaaa", "bbbbbb"):
        make(tmp_path / "root", f"ddp-{suffix}")
    with pytest.raises(Conflict, match=r"fits 2 runs: ddp-aaaaaa, ddp-bbbbbb"):
        resolve("ddp")


@pytest.mark.parametrize("text", ["dpp-aaaaaa", "ddp-aaaaab"])
def test_a_typo_is_answered_with_what_was_meant(tmp_path: Path, text: str) -> None:
    make(tmp_path / "root", "ddp-aaaaaa")
    with pytest.raises(NotFound) as caught:
        resolve(text)
    assert caught.value.hint == "Did you mean ddp-aaaaaa?"


def test_a_deleted_run_is_forgotten(tmp_path: Path) -> None:
    gone = make(tmp_path / "elsewhere", "ddp-aaaaaa")
    kept = make(tmp_path / "elsewhere", "ddp-abbbbb")
    shutil.rmtree(gone.root)
    assert resolve("ddp-a") == kept
    assert [layout for _, layout in all_runs()] == [kept]
    with pytest.raises(NotFound):
        resolve("ddp-aaaaaa")


@pytest.mark.parametrize("text", ["", "nothing", "./nothing", "/nothing/at-all", "*", "x" * 300])
def test_what_is_not_there_is_not_found(text: str) -> None:
    with pytest.raises(NotFound):
        resolve(text)


def test_another_users_private_run_in_a_shared_root_is_no_trouble() -> None:
    with TemporaryDirectory() as name:  # pytest's own folders are private
        root = Path(name)
        root.chmod(0o755)
        theirs, ours = make(root, "ddp-aaaaaa").root, make(root, "ddp-abbbbb").root
        theirs.chmod(0o700 if os.getuid() == 0 else 0)

        def look() -> None:
            assert resolve("ddp-a", root=root).root == ours
            assert [layout.root for _, layout in all_runs(root=root)] == [ours]
            with pytest.raises(UserError, match="another user's"):
                resolve(str(theirs))

        try:
            assert as_nobody(look) == 0
        finally:
            theirs.chmod(0o700)


def as_nobody(call: Callable[[], None]) -> int:
    """The exit code of a process that does it without root's rights."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            call()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_there_is_no_last_run_before_the_first() -> None:
    with pytest.raises(NotFound, match="no runs yet"):
        resolve("@last")


@pytest.mark.parametrize("text", ["@", "@first", "@last~", "@last~-1", "@last~1x", "@last~9999999"])
def test_an_unknown_at_name_says_which_there_are(text: str) -> None:
    with pytest.raises(UserError, match="names no run"):
        resolve(text)


def test_nothing_climbs_out_of_a_root(tmp_path: Path) -> None:
    make(tmp_path / "outside", "ddp-aaaaaa", registered=False)
    (tmp_path / "root").mkdir()
    with pytest.raises(NotFound):
        resolve("..", root=tmp_path / "root")


def test_the_registry_is_private_and_survives_junk(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        layout = make(tmp_path / "elsewhere", "ddp-aaaaaa")
    finally:
        os.umask(before)
    folder = registry_folder()
    for made in (folder, folder.parent, tmp_path / "state"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ddp-aaaaaa").stat().st_mode) == 0o600
    (folder / "junk-aaaaaa").write_bytes(b"\0\xff")
    (folder / "relative-aaaaaa").write_bytes(b"elsewhere\n")
    (folder / "folder-aaaaaa").mkdir()
    assert [found for _, found in all_runs()] == [layout]
