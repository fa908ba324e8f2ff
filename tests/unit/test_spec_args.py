"""entrypoint.args against the script's own `class Args`, without running the script."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from orchestrator.spec.diagnostics import SpecError
from orchestrator.spec.entrypoint_args import boolean_names, model_of
from orchestrator.spec.isolated import CannotEvaluate
from orchestrator.spec.loader import LoadedSpec, load

SCRIPT = '''
"""Training."""
from __future__ import annotations
import sys
import torch_that_is_not_installed
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal
from pydantic import BaseModel, ConfigDict, Field, field_validator

Path("CANARY").write_text("the script has run")
sys.exit(3)

Size = Literal["small", "large"]

class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"

class Nested(BaseModel):
    depth: int = 1

def even(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value

class Args(BaseModel):
    """What can be said."""
    steps: int
    lr: Annotated[float, Field(gt=0)] = 0.1
    size: Size = "small"
    mode: "Mode" = Mode.FAST
    out: Path = Path("out")
    shuffle: bool = True
    resume: bool | None = None
    names: list[str] = []
    heads: int = 2

    @field_validator("heads")
    @classmethod
    def _even(cls, value: int) -> int:
        return even(value)

def main() -> None:
    sys.exit(4)

main()
'''


def run(tmp_path: Path, args: str, script: str = SCRIPT) -> LoadedSpec:
    (tmp_path / "train.py").write_text(script.replace("CANARY", str(tmp_path / "canary")))
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: a\nentrypoint:\n  script: train.py\n  args:\n" + textwrap.indent(args, "    ")
    )
    return load(path)


def refused(tmp_path: Path, args: str, script: str = SCRIPT) -> list[tuple[int | None, str, str]]:
    with pytest.raises(SpecError) as caught:
        run(tmp_path, args, script)
    return [(one.line, one.message, one.suggestion or "") for one in caught.value.diagnostics]


def test_good_args_pass_and_the_script_does_not_run(tmp_path: Path) -> None:
    args = "steps: 10\nlr: 1e-4\nsize: large\nmode: slow\nshuffle: false\nnames: [a]\nout: null\n"
    result = run(tmp_path, args)
    assert result.warnings == ()
    assert result.boolean_args == {"shuffle", "resume"}
    assert not (tmp_path / "canary").exists()


def test_an_unknown_argument_has_its_line_and_a_suggestion(tmp_path: Path) -> None:
    assert refused(tmp_path, "steps: 1\nshufle: true\n") == [
        (6, 'the script\'s Args has no "shufle"', "did you mean shuffle?")
    ]


def test_a_missing_argument_is_named_at_args(tmp_path: Path) -> None:
    [(line, message, help_)] = refused(tmp_path, "lr: 0.1\n")
    assert (line, message) == (4, 'the script needs the argument "steps"')
    assert help_ == "add `steps: ...` to entrypoint.args"


def test_args_that_are_left_out_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "job.yaml").write_text("name: a\nentrypoint: {script: train.py}\n")
    with pytest.raises(SpecError) as caught:
        load(tmp_path / "job.yaml")
    assert [one.code for one in caught.value.diagnostics] == ["missing-arg"]


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("steps: many", 'steps must be a whole number, not "many"'),
        ("steps: 1.5", 'steps must be a whole number, not "1.5"'),
        ("lr: 0", 'lr must be more than 0.0, not "0"'),
        ("size: medium", "size must be 'small' or 'large', not \"medium\""),
        ("mode: medium", "mode must be 'fast' or 'slow', not \"medium\""),
        ("shuffle: maybe", 'shuffle must be true or false, not "maybe"'),
        ("heads: 3", "heads: 3 is odd"),
        ("names: a", 'names must be a list, not "a"'),
    ],
)
def test_a_bad_argument_is_refused_in_plain_words(tmp_path: Path, arg: str, message: str) -> None:
    args = f"{arg}\n" if arg.startswith("steps") else f"{arg}\nsteps: 1\n"
    assert [(line, text) for line, text, _ in refused(tmp_path, args)] == [(5, message)]


def test_a_list_of_args_is_not_checked(tmp_path: Path) -> None:
    assert run(tmp_path, '["--anything", "goes"]').spec.entrypoint.args == ["--anything", "goes"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "from mine import Base\nclass Args(Base):\n    x: int = 1\n",
            "name 'Base' is not defined",
        ),
        ("import os\nclass Args(object):\n    x = os.getcwd()\n", "name 'os' is not defined"),
        ("class Args:\n    x = open('CANARY', 'w')\n", "name 'open' is not defined"),
        ("class Args:\n    __import__('os').mkdir('CANARY')\n", "__import__"),
        ("class Args:\n    raise KeyError('x')\n", "KeyError"),
        ("class Args(\n", "no valid Python"),
        ("class Args: pass\n" + "(" * 5000, "no valid Python"),
    ],
)
def test_a_class_that_cannot_stand_alone_is_a_warning(
    tmp_path: Path, script: str, reason: str
) -> None:
    result = run(tmp_path, "whatever: 1\n", script)
    [warning] = result.warnings
    assert (warning.code, warning.severity, warning.line) == ("args-unchecked", "warning", 3)
    assert reason in warning.message
    assert not (tmp_path / "canary").exists()


def test_a_validator_that_breaks_is_a_warning(tmp_path: Path) -> None:
    script = (
        "from pydantic import BaseModel, field_validator\n"
        "class Args(BaseModel):\n"
        "    x: int\n"
        "    @field_validator('x')\n"
        "    def check(cls, value):\n"
        "        return {}[value]\n"
    )
    [warning] = run(tmp_path, "x: 1\n", script).warnings
    assert "its validator raised KeyError" in warning.message


@pytest.mark.parametrize(
    "script",
    [
        "print('no class')\n",
        "# class Args is only spoken of\n",
        "class Args:\n    x = 1\n",
        "from dataclasses import dataclass\n@dataclass\nclass Args:\n    x: int = 1\n",
        "if True:\n    class Args:\n        pass\n",
    ],
)
def test_a_script_without_such_a_model_takes_anything(tmp_path: Path, script: str) -> None:
    result = run(tmp_path, "whatever: 1\n", script)
    assert result.warnings == ()
    assert result.boolean_args == frozenset()


def test_extra_args_are_allowed_where_the_model_allows_them(tmp_path: Path) -> None:
    script = (
        "import pydantic\n"
        "class Args(pydantic.BaseModel):\n"
        "    model_config = pydantic.ConfigDict(extra='allow')\n"
    )
    assert run(tmp_path, "whatever: 1\n", script).warnings == ()


def test_the_shipped_entrypoint_can_be_checked() -> None:
    model = model_of(Path(__file__).parents[2] / "jobs" / "train_lm.py")
    assert model is not None
    assert "steps" in model.model_fields
    assert boolean_names(model) == {"packed", "tied"}


def test_a_missing_script_has_no_model(tmp_path: Path) -> None:
    assert model_of(tmp_path / "none.py") is None
    (tmp_path / "bad.py").write_bytes(b"class Args:\n    x = '\xff'\n")
    with pytest.raises(CannotEvaluate):
        model_of(tmp_path / "bad.py")
