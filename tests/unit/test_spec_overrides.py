"""--set and the options that are short for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.diagnostics import SpecError
from orchestrator.spec.job import JobSpec
from orchestrator.spec.loader import load
from orchestrator.spec.overrides import Override

SPEC = """\
name: a
entrypoint: {module: train, args: {lr: 0.1}}
launcher: torchrun
env: {A: "1"}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(SPEC)
    return file


def changed(path: Path, *overrides: str | Override) -> JobSpec:
    return load(path, overrides).spec


def refused(path: Path, *overrides: str | Override) -> str:
    with pytest.raises(SpecError) as caught:
        load(path, overrides)
    return caught.value.text()


def test_a_value_is_yaml_and_the_last_one_wins(path: Path) -> None:
    spec = changed(path, "resources.procs_per_node=2", "resources.procs_per_node=4", "setup=[a, b]")
    assert spec.resources.procs_per_node == 4
    assert spec.setup == ["a", "b"]
    assert load(path, ["name=b"]).text == SPEC.encode()


def test_a_path_leads_through_a_shorthand(path: Path) -> None:
    spec = changed(path, 'launcher.args=["--tee", "3"]', "strategy.name=zero", "strategy.stage=3")
    assert spec.launcher.model_dump() == {"name": "torchrun", "args": ["--tee", "3"]}
    assert spec.strategy.name == "zero"
    assert changed(path, "strategy=fsdp").strategy.name == "fsdp"


def test_a_launcher_of_the_same_name_keeps_its_args(path: Path) -> None:
    kept = changed(path, "launcher.args=[--tee, '3']", "launcher=torchrun")
    assert kept.launcher.args == ["--tee", "3"]
    replaced = changed(path, "launcher.args=[--tee, '3']", "launcher=accelerate")
    assert (replaced.launcher.name, replaced.launcher.args) == ("accelerate", [])


def test_keys_that_the_person_chooses_may_hold_dots(path: Path) -> None:
    spec = changed(path, "entrypoint.args.optim.lr=1e-4", "env.B='2'", "slurm.options.x-y=true")
    assert spec.entrypoint.args == {"lr": 0.1, "optim.lr": 1e-4}
    assert spec.env == {"A": "1", "B": "2"}
    assert spec.slurm.options == {"x-y": True}


def test_an_empty_value_is_null(path: Path) -> None:
    assert changed(path, "resources.memory=64GB", "resources.memory=").resources.memory is None


def test_an_override_mends_what_the_file_has_wrong(path: Path) -> None:
    path.write_text(SPEC + "resources: {memory: lots}\n")
    assert changed(path, "resources.memory=1GB").resources.memory == "1GB"


def test_an_empty_file_can_be_filled(path: Path) -> None:
    path.write_text("# nothing\n")
    assert changed(path, "name=b", "entrypoint.module=m").name == "b"


def test_an_override_of_an_alias_changes_no_other_place(path: Path) -> None:
    path.write_text(SPEC + "setup: &s [x]\ntraining: {optimizer: &o {lr: 1}, schedule: {}}\n")
    spec = changed(path, "training.optimizer.lr=2")
    assert spec.training.optimizer.lr == 2


def test_text_options_take_their_value_as_it_stands(path: Path) -> None:
    assert changed(path, Override("--name 007", "name", "007", is_text=True)).name == "007"
    text = refused(path, Override("--name 'a b'", "name", "a b", is_text=True))
    assert text.startswith("--name 'a b': error[bad-value]: name: \"a b\" cannot be a name")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "resources.nodes=x",
            "--set resources.nodes=x: error[wrong-type]: resources.nodes must be a whole number, "
            'not "x"\n  | resources.nodes=x\n  |                 ^',
        ),
        ("resources.node=2", "there is no key \"resources.node\" in a spec\n"),
        ("resources.node=2", "help: did you mean resources.nodes?"),
        ("gpus=2", "help: that is resources.gpus_per_node here"),
        ("partition=x", "help: did you mean slurm.partition?"),
        ("stratgy.stage=2", "help: did you mean strategy.stage?"),
        ("resources.nodes.x=2", "resources.nodes has no keys below it"),
        ("env.=2", 'there is no key "env."'),
        ("=2", "there is no key \"\""),
        ("nodes", "has no value"),
        ("nodes", "help: write it as key.path=value, for example resources.nodes=4"),
        (
            "resources.time_limit=12:30:00",
            "put it in quotes that the shell keeps: 'resources.time_limit=\"12:30:00\"'",
        ),
        ("training.compile=yes", "help: write true"),
        ("env.A=1", "put it in quotes that the shell keeps: 'env.A=\"1\"'"),
        ("name=[", "error[syntax]: a value is missing here"),
        ("name=a: b: c", "error[syntax]: there is a second colon"),
        ("name=\udcff", "a byte that is not UTF-8"),
        ("name=a\0b", "a NUL byte"),
        ("env.A=\"a\\nb\"", "has a line break"),
        ("name=a\nentrypoint: b", "error[syntax]"),
        ("name=" + "[" * 60, "more than 50 levels"),
        ("name=" + "x" * 5000, "cannot be a name"),
        ("entrypoint.args.x=&a [*a]", "stands inside the very value"),
        ("entrypoint.args.x=!!python/name:os.system", "YAML tags are not allowed"),
    ],
)  # fmt: skip
def test_a_bad_override_is_named_as_it_was_typed(path: Path, override: str, words: str) -> None:
    text = refused(path, override)
    assert words in text
    assert text.startswith("--set ")
    assert len(text) < 1500


def test_errors_of_file_and_options_come_together(path: Path) -> None:
    path.write_text(SPEC + "resources: {nodes: x}\n")
    text = refused(path, "training.seed=-1", "nonsense.key=1")
    assert f"{path}:5:20: error[wrong-type]" in text
    assert "--set training.seed=-1: error[out-of-range]" in text
    assert "--set nonsense.key=1: error[unknown-key]" in text
