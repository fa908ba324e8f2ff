"""What a spec asks for and only a script that uses ptx's library gets is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.effects import unread
from orchestrator.spec.fields import spec_fields
from orchestrator.spec.job import JobSpec
from orchestrator.spec.loader import load

JOBS = Path(__file__).parents[2] / "jobs"


def spec_of(**sections: object) -> JobSpec:
    return JobSpec.model_validate({"name": "a", "entrypoint": {"script": "x.py"}, **sections})


def test_defaults_ask_for_nothing() -> None:
    assert unread(spec_of()) == []
    assert unread(spec_of(restart={"max": 0}, checkpoint={"keep_last": 2})) == []


def test_checkpoints_are_written_by_the_library_and_by_nobody_else(tmp_path: Path) -> None:
    wanted = {"every_steps": 10, "best": "loss", "keep_last": 5}
    assert unread(spec_of(checkpoint=wanted)) == []
    (tmp_path / "x.py").write_text("print('mine')\n")
    theirs = ["checkpoint.every_steps", "checkpoint.best", "checkpoint.keep_last"]
    assert unread(spec_of(checkpoint=wanted), tmp_path) == theirs


def test_settings_that_somebody_elses_script_must_read_itself_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("print('mine')\n")
    spec = spec_of(
        strategy={"name": "zero", "stage": 3},
        training={"lora": {}, "precision": "bf16"},
    )
    assert unread(spec, tmp_path) == ["training.lora"]
    (tmp_path / "x.py").write_text("from orchestrator.training.engines import build_engine\n")
    assert unread(spec, tmp_path) == []


def test_the_shipped_entrypoints_read_every_setting() -> None:
    for path in JOBS.glob("*.yaml"):
        assert unread(load(path).spec, JOBS) == [], path


@pytest.mark.parametrize("name", ["quickstart.yaml", "hello.yaml"])
def test_the_first_jobs_of_the_readme_get_all_they_ask_for(name: str) -> None:
    assert unread(load(JOBS / name).spec, JOBS) == []


def test_every_row_is_a_key_of_the_spec() -> None:
    from orchestrator.spec import effects

    assert {tuple(row.split(".")) for row in effects._LIBRARY} <= spec_fields().keys()
