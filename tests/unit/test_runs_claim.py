"""Of several clients that resume a run at the same moment one gets it."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runs.events import ClientEvents, read_events
from orchestrator.runs.layout import RunLayout

LINKS = [pytest.param(None, id="with links"), pytest.param(errno.EPERM, id="without")]


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    made = RunLayout(tmp_path / "demo-0001")
    made.events.mkdir(parents=True)
    return made


@pytest.fixture(autouse=True)
def _file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without hard links refuses them so (vfat, many that live in user space)."""
    number = getattr(request, "param", errno.EPERM)
    if number is not None:

        def refused(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "link", refused)


@pytest.mark.parametrize("_file_system", LINKS, indirect=True)
def test_one_of_many_clients_gets_the_run(layout: RunLayout) -> None:
    got: list[int] = []
    gate = threading.Barrier(8)

    def client(number: int) -> None:
        gate.wait()
        try:
            ClientEvents.claim(layout, 1, client=number)
        except FileExistsError:
            return
        got.append(number)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert len(got) == 1
    (intent,) = read_events(layout)
    assert intent.fields == {"submission": 1, "client": got[0]}
    assert [path.name for path in layout.events.iterdir()] == ["resume-001.jsonl"]
    assert layout.events.joinpath("resume-001.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_client_that_died_over_its_claim_is_in_nobodys_way(layout: RunLayout) -> None:
    dead = layout.events / "resume-001.jsonl"
    dead.touch()
    with pytest.raises(FileExistsError):
        ClientEvents.claim(layout, 1)  # it may be writing at this moment
    os.utime(dead, (time.time() - 100, time.time() - 100))
    events = ClientEvents.claim(layout, 1)
    events.append("submitted", job_id="7")
    assert [event.type for event in read_events(layout)] == ["intent", "submitted"]
    with pytest.raises(FileExistsError):
        ClientEvents.claim(layout, 1)


def test_what_has_nothing_to_do_with_links_is_an_error(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space"):
        ClientEvents.claim(layout, 1)
    assert list(layout.events.iterdir()) == []
