"""No command crashes, hangs or shows a traceback, whatever lies in a run folder.

One real training of two ranks, which saves checkpoints until a rank of it is killed, is the
original. Each of its files and folders is damaged in each of the ways of support/hostile.py, and
each command looks at each result.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.hostile import (
    COMMANDS,
    FIELDS,
    FILES,
    FOLDERS,
    TEXT,
    UNREAD_BY_RESUME,
    WATCHING,
    fresh,
    look,
    mutate_file,
    places,
)
from support.hostile import mutate_folder as damage_folder
from support.made_runs import MadeRun
from support.ptx import CHECKOUT, Ptx, eventually, processes
from support.small_disk import small_disk

from orchestrator.cli.main import main

pytestmark = pytest.mark.slow
ALLOWED = frozenset({0, 1, 2, 3, 4, 5, 124})
"""What errors.py promises; anything else is a crash."""
INTERRUPTED = 130


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    ptx = Ptx(folder / "runs", {"XDG_STATE_HOME": str(folder / "state")})
    settings = {
        "entrypoint.args": "{steps: 100000, context: 16, dim: 16, layers: 1, heads: 1}",
        "checkpoint": "{every_steps: 20, keep_last: 1}",
        "restart": "{on: []}",
        "resources": "{gpus_per_node: 0, procs_per_node: 2}",
    }
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run = ptx.submit(CHECKOUT / "jobs" / "quickstart.yaml", *options)
    eventually(
        lambda: list(run.glob("checkpoints/step-*/manifest.json")),
        within=180,
        what="a checkpoint",
        story=lambda: ptx.story(run),
    )
    ranks = [
        pid
        for pid, words in processes(run).items()
        if "train_lm.py" in words
        and not re.search(r"agent\.pyz|torch\.distributed|torchrun", words)
    ]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    assert ptx("wait", run.name, "--timeout", "120s").returncode == 1
    return run


@pytest.fixture
def run(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PTX_RUNS", str(tmp_path / "runs"))
    copy = tmp_path / "runs" / original.name
    fresh(original, copy)
    return copy


def test_the_original_is_a_run_that_every_command_can_show(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    codes = {argv: look(run, argv) for argv in COMMANDS}
    assert codes.pop(("cancel", "RUN")) == 5  # it has ended
    assert codes.pop(("wait", "RUN", "--timeout", "0.01s")) == 1  # it has failed
    assert codes.pop(("logs", "RUN", "--follow")) == 1
    assert set(codes.values()) == {0}, codes
    files, folders = places(run)
    assert len(files) > 20 and len(folders) > 6


def _all_commands(
    run: Path, what: str, commands: Sequence[tuple[str, ...]] = COMMANDS
) -> list[str]:
    """What was wrong with them: nothing."""
    wrong = []
    for argv in commands:
        if argv[0] == "resume" and what.startswith(UNREAD_BY_RESUME):
            continue
        try:
            code = look(run, argv)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            wrong.append(f"{what}: ptx {' '.join(argv)}: {type(error).__name__}: {error}")
        else:
            if code not in ALLOWED and not (code == INTERRUPTED and argv in WATCHING):
                wrong.append(f"{what}: ptx {' '.join(argv)} ended with {code}")
    return wrong


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_may_be_wrong(
    name: str, original: Path, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for place in places(original)[0]:
        if place.suffix in (".json", ".jsonl") or place.name == "heartbeat":
            fresh(original, run)
            mutate_file(run, place, name)
            wrong += _all_commands(run, f"{place} is {name}")
    assert not wrong, "\n".join(wrong)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", FILES)
def test_every_file_may_be_damaged(
    name: str, original: Path, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for place in places(original)[0]:
        fresh(original, run)
        mutate_file(run, place, name)
        wrong += _all_commands(run, f"{place} is {name}", TEXT)
    assert not wrong, "\n".join(wrong)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", FOLDERS)
def test_every_folder_may_be_damaged(
    name: str, original: Path, run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for place in places(original)[1]:
        fresh(original, run)
        damage_folder(run, place, name)
        wrong += _all_commands(run, f"{place} is {name}", TEXT)
    assert not wrong, "\n".join(wrong)
    assert "Traceback" not in capfd.readouterr().err


def as_nobody(call: Callable[[], object]) -> bool:
    """Whether it went well in a process without root's rights, which may read everything."""
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
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_every_file_and_folder_may_be_anothers(
    original: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with TemporaryDirectory() as name:  # pytest's own folders are private
        root = Path(name)
        root.chmod(0o755)
        monkeypatch.setenv("XDG_STATE_HOME", str(root / "state"))
        run = root / "runs" / original.name
        run.parent.mkdir(mode=0o777)
        fresh(original, run)
        files, folders = places(run)
        for path in (run, *(run / place for place in (*files, *folders))):
            path.chmod(0o755 if path.is_dir() else 0o644)
        wrong = root / "wrong"
        wrong.touch()
        wrong.chmod(0o666)

        def look_at_all() -> None:
            found = _all_commands(run, str(place))
            wrong.write_text(wrong.read_text() + "".join(f"{line}\n" for line in found))

        for place in (*files, *folders):
            mode = (run / place).stat().st_mode
            (run / place).chmod(0o700 if os.getuid() == 0 else 0)
            assert as_nobody(look_at_all)
            (run / place).chmod(mode)
        assert wrong.read_text() == ""
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    with pytest.raises(OSError, match="No space left"):
        (folder / "more").write_bytes(b"x")


@pytest.mark.mount
def test_a_full_disk_is_told_and_what_is_there_is_shown(
    original: Path,
    full_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(full_disk / "state"))
    monkeypatch.setenv("PTX_RUNS", str(full_disk / "runs"))
    run = full_disk / "runs" / original.name
    fresh(original, run)
    for number in range(30):  # enough that an index would be written
        MadeRun(run.parent, f"r-{number:06d}").completed()
    live = MadeRun(run.parent, "live-aaaaaa").supervised().started()
    fill(full_disk)
    assert not _all_commands(run, "full disk")
    assert [look(run, argv) for argv in (("status",), ("why", "RUN"), ("logs", "RUN"))] == [0] * 3
    capfd.readouterr()
    assert look(live.layout.root, ("cancel", "RUN")) == 2
    assert "No space left" in capfd.readouterr().err
    assert main(["resume", str(run)]) == 2
    assert main(["submit", str(CHECKOUT / "jobs/hello.yaml")]) == 2
    told = capfd.readouterr().err
    assert "No space left" in told and "Traceback" not in told
