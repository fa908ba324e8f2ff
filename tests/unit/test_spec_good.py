"""Good specs load, say the same when written out, and keep YAML's traps away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spec.job import JobSpec
from orchestrator.spec.loader import load
from orchestrator.spec.resolve import to_yaml
from orchestrator.spec.strategy import Zero

HEAD = "name: a\nentrypoint: {module: train}\n"
JOBS = Path(__file__).parents[2] / "jobs"


def loaded(tmp_path: Path, text: str) -> JobSpec:
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path).spec


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_spec_loads_without_a_warning(path: Path) -> None:
    result = load(path)
    assert result.warnings == ()
    assert result.text == path.read_bytes()


def test_shorthands_stand_for_sections(tmp_path: Path) -> None:
    spec = loaded(tmp_path, HEAD + "launcher: deepspeed\nstrategy: zero\n")
    assert spec.launcher.name == "deepspeed"
    assert spec.strategy == Zero(name="zero")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("5", 5.0), (".5", 0.5), ("+2.5E3", 2500.0), ("3.", 3.0)],
)
def test_every_usual_form_of_a_number_is_one(text: str, value: float, tmp_path: Path) -> None:
    spec = loaded(tmp_path, HEAD + f"training: {{optimizer: {{lr: {text}}}}}\n")
    assert spec.training.optimizer.lr == value


@pytest.mark.parametrize(
    "text", ["2026-01-01", "2026-01-01 10:00:00", "y", "n", "1.2.3", "12h", "1-12:00:00", "=", "e5"]
)
def test_a_word_that_only_looks_special_stays_text(text: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, HEAD + f"env: {{A: {text}}}\n").env == {"A": text}


def test_null_takes_the_default_and_null_args_stay(tmp_path: Path) -> None:
    spec = loaded(
        tmp_path,
        "name: a\nentrypoint: {module: m, args: {x: null, y: ~}}\nresources: {memory: null}\n",
    )
    assert spec.resources.memory is None
    assert spec.entrypoint.args == {"x": None, "y": None}


def test_aliases_are_copied_where_they_stand(tmp_path: Path) -> None:
    spec = loaded(tmp_path, HEAD + "python: &text abc\nworkdir: *text\n")
    assert (spec.python, spec.workdir) == ("abc", "abc")


def test_on_is_a_key_and_no_boolean(tmp_path: Path) -> None:
    assert loaded(tmp_path, HEAD + "restart: {on: [failed]}\n").restart.on == ["failed"]


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_resolved_spec_loads_back_to_an_equal_one(path: Path, tmp_path: Path) -> None:
    spec = load(path).spec
    resolved = to_yaml(spec)
    (tmp_path / "job.yaml").write_bytes(resolved)
    if spec.entrypoint.script:
        script = JOBS / spec.entrypoint.script
        (tmp_path / spec.entrypoint.script).write_bytes(script.read_bytes())
    again = load(tmp_path / "job.yaml").spec
    assert again == spec
    assert to_yaml(again) == resolved
    assert yaml.safe_load(resolved) == spec.model_dump()


HOSTILE = [
    "no", "12:30:00", "1e-4", "0o17", "010", "1_000", "null", "~", "", " x ", "a: b", "a #b", "- a",
    "*x", "&x", "!x", "@x", "`x`", "%x", "'", '"', "\\", "\\n", "$(touch canary)", "é\U0001f600",
    "\xa0", "\ufeff", "y", "N", "=", "<<", "{}", "[]", "|", ">", "x" * 300, "--flag", "2026-01-01",
    "0xFF", ".inf", ".nan", "1.", "true", "a\\u0041",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_survives_being_written_and_read(text: str, tmp_path: Path) -> None:
    spec = JobSpec.model_validate(
        {
            "name": "a",
            "entrypoint": {"command": ["x", text], "args": {"key": text, "list": [text, 1, 2.5]}},
            "env": {"A": text},
        }
    )
    assert yaml.safe_load(to_yaml(spec)) == spec.model_dump()
    (tmp_path / "job.yaml").write_bytes(to_yaml(spec))
    assert load(tmp_path / "job.yaml").spec == spec


VALUES = (
    st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20).filter(
        lambda text: not {"\ufffe", "\uffff"}.intersection(text)
    )
)


@settings(deadline=None, max_examples=40)
@given(args=st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True), VALUES))
def test_any_args_survive_being_written_and_read(
    args: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = JobSpec.model_validate({"name": "a", "entrypoint": {"module": "m", "args": args}})
    path = tmp_path_factory.mktemp("spec") / "job.yaml"
    path.write_bytes(to_yaml(spec))
    assert load(path).spec == spec
