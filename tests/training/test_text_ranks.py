"""Real ranks read the same data, and what is wrong with it ends all of them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from support.training_ranks import Ended, plan_file, run

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "support" / "text_ranks.py"


def ranks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *cases: dict[str, Any], **environ: str
) -> list[Ended]:
    cases_file = folder / "cases.json"
    cases_file.write_text(json.dumps(cases))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))  # PTX_ names do not reach the ranks
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    plan = plan_file(folder, world_size=2)
    return run(SCRIPT, str(cases_file), world_size=2, plan=plan)


def said(rank: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rank.out.splitlines()]


def records(path: Path, *lines: str) -> dict[str, Any]:
    path.write_text("\n".join([*lines, *(f'{{"text": "number {i}"}}' for i in range(200))]) + "\n")
    return {"options": {"data": str(path), "context": 32}}


def test_one_rank_tokenises_for_all_and_one_that_fails_ends_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = records(tmp_path / "good.jsonl")
    cases = {
        "first": good,
        "again": good,
        "apart": good | {"apart": True},
        "too few": good | {"step_samples": 10_000},
        "prompt": records(
            tmp_path / "prompt.jsonl",
            '{"prompt": "question", "completion": "answer"}',
        ),
        "bad": records(tmp_path / "bad.jsonl", '{"text": "fine"}', '{"text": 7}'),
    }
    ended = ranks(tmp_path, monkeypatch, *cases.values())
    zero, one = (dict(zip(cases, said(rank), strict=False)) for rank in ended)
    for name in ("first", "again", "apart", "prompt"):
        assert zero[name]["digest"] == one[name]["digest"]
    assert zero["apart"]["digest"] == zero["first"]["digest"] != zero["prompt"]["digest"]
    calls = {name: (zero[name]["calls"] > 0, one[name]["calls"] > 0) for name in ("first", "again")}
    assert calls == {"first": (True, False), "again": (False, False)}
    assert zero["apart"]["calls"] == one["apart"]["calls"] > 0
    assert "one step takes 10,000 over all 2 ranks" in zero["too few"]["error"]
    assert zero["too few"] == one["too few"]
    for rank in ended:
        assert rank.code == 2
        assert rank.err.splitlines()[-1].startswith("usage: rank 0: ")
        assert "bad.jsonl:2: text is a number" in rank.err
        assert "Traceback" not in rank.err


@pytest.mark.parametrize("other", ["yes " * 200, "no " * 300], ids=["shorter", "as long"])
def test_ranks_that_see_other_text_under_one_name_do_not_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    (tmp_path / "text.0").write_text("yes it" * 150)
    (tmp_path / "text.1").write_text(other)
    case = {"options": {"data": str(tmp_path / "text"), "context": 16}, "own": True}
    for rank in ranks(tmp_path, monkeypatch, case):
        assert rank.code == 2
        assert "rank 1 has read other data than rank 0" in rank.err


def test_a_builder_that_is_killed_does_not_leave_the_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = records(tmp_path / "good.jsonl")
    first, second = ranks(tmp_path, monkeypatch, good, HOSTILE="0")
    assert first.code == -signal.SIGKILL
    assert second.code not in (0, None)
    tokens = tmp_path / "ptx" / "tokens"
    assert all(path.name.startswith(".") for path in tokens.iterdir())
