"""The command line of an entrypoint says exactly what the spec's args said."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from orchestrator.errors import UserError
from orchestrator.plan.entrypoint import entrypoint_argv
from orchestrator.spec.entrypoint import Entrypoint
from orchestrator.training.args import parse_args


class Args(BaseModel):
    steps: int = Field(10, ge=1, description="100% of the steps")
    lr: float = 1e-3
    data: str | None = None
    shuffle_all: bool = True
    verbose: bool | None = None
    layers: list[int] = []
    mode: Literal["fast", "slow"] = "fast"


BOOLEANS = frozenset({"shuffle_all", "verbose"})


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"steps": 3, "lr": 1e-5, "mode": "slow"},
        {"shuffle_all": False, "verbose": True},
        {"shuffle_all": True, "verbose": False},
        {"layers": [1, 2, 3]},
        {"layers": []},
        {"data": "--not a flag"},
        {"data": "a=b c'\"$(x)é"},
        {"data": ""},
        {"data": None},
    ],
)
def test_what_ptx_renders_comes_back_as_it_was(args: dict[str, object]) -> None:
    entrypoint = Entrypoint.model_validate({"script": "x.py", "args": args})
    argv = entrypoint_argv(entrypoint, Path("/"), BOOLEANS)[3:]
    assert parse_args(Args, argv) == Args.model_validate(args)


def test_dashes_and_underscores_are_the_same() -> None:
    assert not parse_args(Args, ["--no-shuffle-all"]).shuffle_all
    assert not parse_args(Args, ["--no-shuffle_all"]).shuffle_all


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--steps=0"], "--steps: Input should be greater than or equal to 1"),
        (["--steps=1.5", "--mode=x"], "--mode: Input should be 'fast' or 'slow'"),
        (["--step=1"], "unrecognized arguments: --step=1"),
        (["more"], "unrecognized arguments: more"),
        (["--steps"], "argument --steps: expected one argument"),
    ],
)
def test_what_does_not_fit_is_one_sentence(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_args(Args, argv)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_help_shows_every_field_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_args(Args, ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "100% of the steps (default: 10)" in text
    assert "--no-shuffle_all" in text
