"""What a spec asks for and does not get yet is said, or refused where it loses work."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.effects import is_own_entrypoint, not_yet
from orchestrator.spec.fields import spec_fields
from orchestrator.spec.job import JobSpec
from orchestrator.spec.loader import load

JOBS = Path(__file__).parents[2] / "jobs"


def spec_of(**sections: object) -> JobSpec:
    return JobSpec.model_validate({"name": "a", "entrypoint": {"script": "x.py"}, **sections})


def test_defaults_ask_for_nothing() -> None:
    assert not_yet(spec_of()) == ([], [], [])
    assert not_yet(spec_of(restart={"max": 0}, checkpoint={"keep_last": 2})) == ([], [], [])


def test_what_is_relied_on_and_missing_loses_work() -> None:
    effects = not_yet(
        spec_of(restart={"max": 3}, checkpoint={"every_steps": 10, "best": "loss", "keep_last": 5})
    )
    assert effects.ignored == ["checkpoint.keep_last"]
    assert [sentence.split(":")[0] for sentence in effects.loses_work] == [
        "restart.max",
        "checkpoint.every_steps",
        "checkpoint.best",
    ]


def test_the_strategy_of_somebody_elses_script_is_theirs(tmp_path: Path) -> None:
    (tmp_path / "train_lm.py").write_text("print('mine')\n")
    spec = spec_of(
        entrypoint={"script": "train_lm.py"},
        strategy={"name": "zero", "stage": 3},
        training={"lora": {}},
    )
    assert not is_own_entrypoint(spec, tmp_path)
    assert not_yet(spec, tmp_path) == (["training.lora"], [], [])


def test_the_own_entrypoint_is_not_given_what_it_cannot_train() -> None:
    spec = load(JOBS / "llama_lora_zero3.yaml").spec
    assert is_own_entrypoint(spec, JOBS)
    assert not_yet(spec, JOBS).refused == [
        "strategy zero: train_lm.py cannot train with it yet",
        "training.lora: train_lm.py cannot train with it yet",
    ]


@pytest.mark.parametrize("name", ["quickstart.yaml", "hello.yaml"])
def test_the_first_jobs_of_the_readme_get_all_they_ask_for(name: str) -> None:
    assert not_yet(load(JOBS / name).spec, JOBS) == ([], [], [])


def test_every_row_is_a_key_of_the_spec() -> None:
    from orchestrator.spec import effects

    rows = (*effects._IGNORED, *effects._LOSES_WORK, *effects._UNTRAINED)
    assert {tuple(row.split(".")) for row in rows} <= spec_fields().keys()
