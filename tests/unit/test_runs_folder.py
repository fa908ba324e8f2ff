"""Ids, the root, and the making of a run folder."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Conflict, UserError
from orchestrator.render.bundle import Bundle, BundleFile
from orchestrator.runs.create import create_run
from orchestrator.runs.ids import ALPHABET, is_run_id, new_run_id
from orchestrator.runs.layout import RunLayout
from orchestrator.runs.records import RunRecord, read_record
from orchestrator.runs.root import registry_folder, runs_root

RECORD = RunRecord("r-aaaaaa", "r", 1.5, "local", "torchrun", 1, 2, 2, "ann", "here")


def bundle(root: Path, *files: BundleFile) -> Bundle:
    standard = (
        BundleFile("launch.sh", b"#!/bin/bash\r\n\xff\n", executable=True),
        BundleFile("plan.json", b"{}\n"),
    )
    return Bundle("r-aaaaaa", root / "r-aaaaaa", "local", (*standard, *files), ("true",))


def create(root: Path, *files: BundleFile, group: bool = False) -> RunLayout:
    secrets = {"TOKEN": "s3cret\n=x", "OTHER": "\udcff"}
    return made(bundle(root, *files), b"name: r\r\n", secrets=secrets, group_shared=group)


def made(bundle: Bundle, spec: bytes, **options: Any) -> RunLayout:
    """Whoever intends it finds all but the record."""

    def intend() -> None:
        assert (bundle.run_dir / "bundle" / "plan.json").exists()
        assert not (bundle.run_dir / "run.json").exists()

    return create_run(RECORD, bundle, spec, intend=intend, **options)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> object:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_run_ids_are_unambiguous_and_unlike() -> None:
    ids = {new_run_id("my.Run_1") for _ in range(500)}
    assert len(ids) == 500
    assert all(is_run_id(run_id) for run_id in ids)
    assert not set("ilou") & set(ALPHABET)
    assert not any(map(is_run_id, ["", "r", "r-aaaaa", "r-aaaaail", "../r-aaaaaa", "r-aaaaaa\n"]))


@pytest.mark.usefixtures("umask")
def test_folders_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path) -> None:
    layout = create(tmp_path / "runs")
    for path in [layout.root.parent, layout.root, *layout.root.rglob("*")]:
        if path.is_dir():
            assert mode(path) == 0o700, path
        else:
            assert mode(path) == (0o700 if path.name == "launch.sh" else 0o600), path


@pytest.mark.usefixtures("umask")
def test_a_shared_run_belongs_to_the_group_but_its_secrets_do_not(tmp_path: Path) -> None:
    layout = create(tmp_path / "runs", group=True)
    for path in [layout.root, *layout.root.rglob("*")]:
        if path.is_dir():
            assert mode(path) == 0o2770, path
        elif path.name != "launch.sh":
            assert mode(path) == (0o600 if path.name == "secrets" else 0o660), path
    assert mode(layout.bundle / "launch.sh") == 0o770


@pytest.mark.skipif(os.geteuid() != 0, reason="a second group is only sure to be root's to give")
def test_a_shared_run_belongs_to_the_group_that_owns_the_root(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir(mode=0o770)
    os.chown(root, -1, 12345)
    layout = create(root, group=True)
    paths = [layout.root, *layout.root.rglob("*")]
    assert {path.stat().st_gid for path in paths} == {12345}
    assert {mode(path) for path in paths if path.is_dir()} == {0o2770}
    shutil.rmtree(layout.root)
    assert create(root).root.stat().st_gid == os.getegid()


def test_every_byte_arrives(tmp_path: Path) -> None:
    layout = create(tmp_path)
    assert (layout.bundle / "launch.sh").read_bytes() == b"#!/bin/bash\r\n\xff\n"
    assert layout.spec.read_bytes() == b"name: r\r\n"
    assert layout.secrets.read_bytes() == b"TOKEN=s3cret\n=x\0OTHER=\xff\0"
    assert read_record(layout) == RECORD
    assert layout.events.is_dir() and not list(layout.events.iterdir())


def test_a_record_that_an_editor_has_saved_is_read(tmp_path: Path) -> None:
    """Some put a mark before UTF-8, and white space around."""
    layout = create(tmp_path)
    layout.record.write_bytes(b"\xef\xbb\xbf\r\n " + layout.record.read_bytes() + b"\n\t")
    assert read_record(layout) == RECORD
    layout.record.write_bytes(layout.record.read_bytes() + b"{}")
    assert read_record(layout) is None


def test_a_run_without_secrets_has_no_file_of_them(tmp_path: Path) -> None:
    layout = made(bundle(tmp_path), b"", secrets={}, group_shared=False)
    assert not layout.secrets.exists()


def test_an_existing_run_is_a_conflict_and_stays_as_it_was(tmp_path: Path) -> None:
    layout = create(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in layout.root.rglob("*")}
    with pytest.raises(Conflict, match="exists already"):
        create(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in layout.root.rglob("*")}


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        create(tmp_path, BundleFile("no/such/folder", b""))
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as caught:
        create(tmp_path / "file" / "runs")
    assert "--runs" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\x7fb"])
def test_a_path_with_control_characters_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="control character"):
        runs_root(str(tmp_path / name), {})


def test_the_root_is_the_option_else_the_variable_else_the_config_else_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "ptx" / "config.yaml"
    config.parent.mkdir()
    config.write_text("runs: /from/config\n")
    environ = {"PTX_RUNS": "/from/variable", "XDG_CONFIG_HOME": str(tmp_path)}
    assert runs_root("/from/option", environ) == Path("/from/option")
    assert runs_root(None, environ) == Path("/from/variable")
    assert runs_root(None, {"XDG_CONFIG_HOME": str(tmp_path)}) == Path("/from/config")
    config.unlink()
    assert runs_root(None, {"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "ptx-runs"


def test_somebody_without_account_and_home_has_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is started under a free user number."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME")
    monkeypatch.chdir(tmp_path)
    assert runs_root(None, {}) == tmp_path / "ptx-runs"
    assert not registry_folder({}).exists()
    for name in ("~/runs", "~nobody-of-this-name/runs"):
        with pytest.raises(UserError, match="home directory that is unknown"):
            runs_root(name, {})


@pytest.mark.parametrize("text", ["[", "- a", "runs: 3", "runs: [a]", "\x00"])
def test_a_broken_config_file_is_a_users_error(tmp_path: Path, text: str) -> None:
    config = tmp_path / "ptx" / "config.yaml"
    config.parent.mkdir()
    config.write_text(text)
    with pytest.raises(UserError, match="config"):
        runs_root(None, {"XDG_CONFIG_HOME": str(tmp_path)})


def test_an_unreadable_record_is_no_run(tmp_path: Path) -> None:
    layout = create(tmp_path)
    for data in (b"", b"{", b"[]", b'{"v": 2}', b'{"v": 1}', b"\xff", b"[" * 100_000):
        layout.record.write_bytes(data)
        assert read_record(layout) is None
