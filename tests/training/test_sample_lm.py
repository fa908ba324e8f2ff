"""jobs/sample_lm.py: text from whatever training has left, without ptx and without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.language import built, moved, saved
from support.training_ranks import CHECKOUT, Ended, run

pytestmark = pytest.mark.slow

SAMPLE_LM = CHECKOUT / "jobs" / "sample_lm.py"


def sampled(*args: str, world_size: int = 1) -> list[Ended]:
    return run(SAMPLE_LM, "--length=40", "--prompt=while ", *args, world_size=world_size)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    found = {"whole": saved(built(), root / "whole")}
    for name, training in (("adapter", {"lora": {}}), ("delta", {"trainable": ["lm_head*"]})):
        language = built(training, model=str(found["whole"]))
        moved(language.objective.model)
        found[name] = saved(language, root / name)
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [("whole", "whole model"), ("adapter", "adapter over"), ("delta", "trained parameters over")],
)
def test_text_comes_from_every_form_of_a_trained_model(
    folders: dict[str, Path], name: str, kind: str
) -> None:
    (rank,) = sampled(f"--model={folders[name]}")
    assert rank.code == 0, rank.err
    first, _, text = rank.out.partition("\n")
    assert first.startswith(f"{folders[name]}: {kind}")
    assert text.startswith("while ")
    assert len(text) > 20
    assert all(character == "\n" or character.isprintable() for character in text)


def test_one_rank_of_several_writes(tmp_path: Path) -> None:
    folder = saved(built(model="bytes"), tmp_path / "model")
    first, second = sampled(f"--model={folder}", "--temperature=0", world_size=2)
    assert (first.code, second.code) == (0, 0), first.err
    assert "built-in model" in first.out
    assert second.out == ""


@pytest.mark.parametrize(
    ("args", "sentence"),
    [((), "no model is named"), (("--model=/nowhere",), "there is no model folder /nowhere")],
)
def test_a_model_that_is_not_there_is_told_in_one_line(
    args: tuple[str, ...], sentence: str
) -> None:
    (rank,) = sampled(*args)
    assert rank.code == 2
    assert sentence in rank.err
    assert len(rank.err.splitlines()) == 1
