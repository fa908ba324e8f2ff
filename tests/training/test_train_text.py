"""The text entrypoint itself: it learns, keeps what it has learned, and stops with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.ptx import CHECKOUT, Ptx, rank_logs
from support.training_ranks import Ended, all_well, plan_file, run

pytestmark = pytest.mark.slow

SCRIPT = CHECKOUT / "jobs" / "train_text.py"


def ranks(folder: Path, *args: str) -> list[Ended]:
    folder.mkdir(exist_ok=True)
    plan = plan_file(folder, world_size=2, training={"micro_batch": 4})
    return run(SCRIPT, *args, world_size=2, plan=plan)


def test_the_language_of_90_percent_of_held_out_source_code_is_found(tmp_path: Path) -> None:
    """On two CPU ranks, as the job file says and ptx starts it; the result loads elsewhere."""
    from transformers import AutoModelForSequenceClassification

    from orchestrator.training.classification.encoding import NOTE, load_encoder
    from orchestrator.training.classification.source_code import load_source_code

    ptx = Ptx(tmp_path / "runs")
    spec = CHECKOUT / "jobs" / "text_classifier.yaml"
    job = ptx.submit(spec, "--set", "resources.gpus_per_node=0")
    waited = ptx("wait", job.name, "--timeout", "400s", timeout=420)
    assert waited.returncode == 0, waited.stdout + waited.stderr + ptx.story(job)
    found = json.loads((job / "model" / "evaluation.json").read_text())
    assert found["accuracy"] > 0.9
    log = rank_logs(job)[0].read_text()
    assert f"test accuracy {found['accuracy']:.4f}, macro F1 {found['macro_f1']:.4f}" in log
    assert "true \\ predicted" in log

    note = json.loads((job / "model" / NOTE).read_text())
    encode = load_encoder(note["tokenizer"], length=note["length"], vocabulary=note["vocabulary"])
    data = load_source_code(seed=0)
    model = AutoModelForSequenceClassification.from_pretrained(job / "model").eval()
    right = 0
    with torch.no_grad():
        for number in data.split.test:
            guess = int(model(**encode([data.texts[number]])).logits.argmax())
            right += model.config.id2label[guess] == data.classes[data.labels[number]]
    assert right / len(data.split.test) == pytest.approx(found["accuracy"])


def test_a_person_s_own_texts_train_a_published_model_or_name_the_bad_line(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        AutoTokenizer,
        DistilBertConfig,
        DistilBertModel,
        PreTrainedTokenizerFast,
    )

    words = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad"])}
    inner = Tokenizer(models.WordLevel(words, **UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = tmp_path / "weights"
    special = UNKNOWN | {"pad_token": "[PAD]", "cls_token": "[CLS]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(weights)
    config = DistilBertConfig(
        vocab_size=8, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=32
    )
    DistilBertModel(config).save_pretrained(weights)

    data = tmp_path / "data.csv"
    rows = [f"a {word} film {n},{label}" for n in range(25) for word, label in PAIRS]
    data.write_text("\n".join(["review,stars", *rows]))
    common = (
        *(f"--data={data}", "--text_column=review", "--label_column=stars", "--epochs=1"),
        *(f"--model={weights}", "--length=32"),
    )
    ended = ranks(tmp_path / "good", *common)
    all_well(ended)
    assert "new head: 2 classes" in ended[0].out
    model = tmp_path / "good" / "run" / "model"
    saved = json.loads((model / "config.json").read_text())
    assert saved["id2label"] == {"0": "1", "1": "5"}
    assert AutoTokenizer.from_pretrained(model)("good bad")["input_ids"] == [4, 5]

    data.write_text("\n".join(["review,stars", *rows, "no label at all"]))
    ended = ranks(tmp_path / "bad", *common)
    for rank in ended:
        assert rank.code == 2
        assert f"{data}, line 52: 1 fields, and the header has 2" in rank.err
        assert "Traceback" not in rank.err


UNKNOWN = {"unk_token": "[UNK]"}
PAIRS = (("good", 5), ("bad", 1))
