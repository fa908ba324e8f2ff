"""The image entrypoint itself: it learns, keeps what it has learned, and stops with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.ptx import CHECKOUT, Ptx, rank_logs
from support.training_ranks import Ended, all_well, plan_file, run

pytestmark = pytest.mark.slow

SCRIPT = CHECKOUT / "jobs" / "train_image.py"
SMALL = ("--dim=16", "--layers=1", "--heads=2", "--patch=4")


def ranks(folder: Path, *args: str, training: dict[str, Any] | None = None) -> list[Ended]:
    folder.mkdir(exist_ok=True)
    plan = plan_file(folder, world_size=2, training=training or {"micro_batch": 4})
    return run(SCRIPT, *args, world_size=2, plan=plan)


def test_a_vit_reads_95_percent_of_held_out_digits(tmp_path: Path) -> None:
    """On two CPU ranks, as the job file says and ptx starts it; the result loads elsewhere."""
    from transformers import AutoModelForImageClassification

    from orchestrator.training.vision.digits import load_digits

    ptx = Ptx(tmp_path / "runs")
    job = ptx.submit(CHECKOUT / "jobs" / "vit_digits.yaml", "--set", "resources.gpus_per_node=0")
    waited = ptx("wait", job.name, "--timeout", "300s", timeout=320)
    assert waited.returncode == 0, waited.stdout + waited.stderr + ptx.story(job)
    found = json.loads((job / "model" / "evaluation.json").read_text())
    assert found["accuracy"] >= 0.95
    assert f"test accuracy {found['accuracy']:.4f}" in rank_logs(job)[0].read_text()

    records = (job / "attempts" / "000" / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in records]
    assert [round(record["epoch"]) for record in epochs] == list(range(1, 21))
    assert epochs[-1]["eval_accuracy"] > 0.9 > epochs[0]["eval_accuracy"]
    assert epochs[-1]["train_accuracy"] > 0.95

    data = load_digits(seed=0)
    pixels, _ = data.pictures.read(data.split.test)
    model = AutoModelForImageClassification.from_pretrained(job / "model").eval()
    with torch.no_grad():
        guess = model(pixels.float() / 127.5 - 1).logits.argmax(-1)
    truth = torch.tensor([data.pictures.labels[number] for number in data.split.test])
    assert (guess == truth).float().mean().item() == pytest.approx(found["accuracy"])
    assert found["samples"] == len(truth)


def write_cifar(folder: Path) -> None:
    """Pictures whose class is their colour, in the published binary layout."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, count in (("data_batch_1", 120), ("test_batch", 33)):
        labels = np.arange(count, dtype=np.uint8) % 3
        pixels = random.integers(0, 100, (count, 3, 1024), dtype=np.uint8)
        pixels[np.arange(count), labels] += 100
        records = np.concatenate([labels[:, None], pixels.reshape(count, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def test_a_vgg_learns_from_cifar_files_and_is_kept(tmp_path: Path) -> None:
    from orchestrator.training.vision.cifar import load_cifar
    from orchestrator.training.vision.vgg_form import load_vgg

    write_cifar(tmp_path / "cifar")
    training = {"micro_batch": 4, "optimizer": {"name": "adamw", "lr": 1e-3}}
    ended = ranks(
        tmp_path,
        *("--model=vgg16", f"--data={tmp_path / 'cifar'}", "--epochs=2", "--width=2"),
        *("--hidden=16", "--crop=2", "--flip", "--dropout=0.1"),
        training=training,
    )
    all_well(ended)
    metrics = next((tmp_path / "run").rglob("metrics.jsonl")).read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in metrics]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])

    found = json.loads((tmp_path / "run" / "model" / "evaluation.json").read_text())
    assert found["v"] == 1
    data = load_cifar(tmp_path / "cifar", seed=0)
    pixels, _ = data.pictures.read(data.split.test)
    model = load_vgg(tmp_path / "run" / "model").eval()
    with torch.no_grad():
        guess = model(pixels.float() / 127.5 - 1).argmax(-1).tolist()
    truth = [data.pictures.labels[number] for number in data.split.test]
    assert found["accuracy"] == pytest.approx(
        sum(a == b for a, b in zip(guess, truth, strict=True)) / 33
    )
    assert np.array(found["confusion"]).sum() == found["samples"] == 33


def write_folder(folder: Path) -> None:
    """Three classes, each with files of several modes."""
    for shade, name in enumerate(("dark", "grey", "light")):
        (folder / name).mkdir(parents=True)
        for number, mode in enumerate(("RGB", "L", "RGBA", "P") * 5):
            colour = (100 * shade + number,) * 3
            image = Image.new("RGB", (8 + number, 9), colour).convert(mode)
            image.save(folder / name / f"{number:02}.png")


def test_pretrained_weights_get_a_new_head_and_bad_images_end_all_ranks(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    write_folder(tmp_path / "data")
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=7,
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "weights")
    common = (f"--data={tmp_path / 'data'}", f"--model={tmp_path / 'weights'}", "--epochs=1")
    ended = ranks(tmp_path / "good", *common)
    all_well(ended)
    assert "new head: 3 classes in place of 7" in ended[0].out
    saved = json.loads((tmp_path / "good" / "run" / "model" / "config.json").read_text())
    assert saved["id2label"] == {"0": "dark", "1": "grey", "2": "light"}

    for number in range(20):
        (tmp_path / "data" / "dark" / f"{number:02}.png").write_bytes(b"no image")
    ended = ranks(tmp_path / "bad", *common)
    for rank in ended:
        assert rank.code == 1
        assert "cannot read the image" in rank.err
        assert "dark/" in rank.err
        assert "Traceback" not in rank.err
    assert "rank 0: " in ended[1].err or "rank 1: " in ended[0].err


def test_data_that_do_not_suffice_end_all_ranks_with_a_sentence(tmp_path: Path) -> None:
    for name in ("train/a", "val/a", "test/a"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "0.png")
    args = (f"--data={tmp_path / 'data'}", "--image_size=8", *SMALL)
    too_few = ranks(tmp_path / "few", *args)
    (tmp_path / "data" / "train" / "b").mkdir()
    (tmp_path / "data" / "train" / "b" / "note.txt").touch()
    empty = ranks(tmp_path / "empty", *args)
    for sentence, ended in (
        ("1 training samples cannot be shared by 2 ranks", too_few),
        ("train/b has no image", empty),
    ):
        for rank in ended:
            assert rank.code == 2
            assert sentence in rank.err
            assert "Traceback" not in rank.err
