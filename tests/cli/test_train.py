"""``vmkla train``: flags reach the configuration, results reach stdout, errors end with their status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vmkla.training.config import TrainConfig, TrainResult


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Four images with masks, and files that list three of them and the fourth."""
    rng = np.random.default_rng(4)
    folder = tmp_path / "set"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for stem in "abcd":
        mask = np.zeros((40, 48), np.uint8)
        cv2.circle(mask, (24, 20), 9, 255, -1)
        picture = rng.integers(0, 120, (40, 48, 3), dtype=np.uint8)
        picture[mask > 0] += 100
        cv2.imwrite(str(folder / "images" / f"{stem}.png"), picture)
        cv2.imwrite(str(folder / "masks" / f"{stem}.png"), mask)
    (folder / "three.txt").write_text("a\nb\nc\n")
    (folder / "one.txt").write_text("d\n")
    return folder


@pytest.mark.slow
def test_one_epoch_gives_weights_that_export_takes(vmkla: Any, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    data = ("--data", f"{labelled}:{labelled / 'three.txt'}", "--val", f"{labelled}:{labelled / 'one.txt'}")
    size = ("--imgsz", "32", "--batch", 2, "--epochs", 1, "--no-curves", "--threads", 1)
    done = vmkla("train", *data, *size, "--out", out, "--json")
    assert done.status == 0, done.stderr
    result = done.json
    assert result["finished"] is True and result["epochs_done"] == 1 and len(result["history"]) == 1
    assert Path(result["best_weights"]).is_file() and Path(result["last_weights"]).is_file()
    assert "epoch 1/1" in done.stderr
    again = vmkla("train", *data, *size, "--out", out)
    assert again.status == 2 and "--resume" in again.stderr


def test_every_flag_reaches_the_configuration(
    vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is left out; what it would be given is what counts here."""
    seen: list[TrainConfig] = []

    def record(config: TrainConfig, **_: object) -> TrainResult:
        seen.append(config)
        return TrainResult(None, None, float("nan"), 0, 0, False, ())

    monkeypatch.setattr("vmkla.training.train", record)
    flags = {
        "--model": "tiny", "--decoder-block": "ss2d", "--imgsz": "64,96", "--roi": "auto", "--rendered": 7,
        "--epochs": 3, "--batch": 5, "--lr": 0.002, "--min-lr": 0.0002, "--weight-decay": 0.03,
        "--t-max-epochs": 11, "--warmup-epochs": 0.5, "--ema-decay": 0.9, "--grad-clip": 2.5,
        "--bce-weight": 0.25, "--dice-weight": 0.75, "--seed": 9, "--threshold": 0.4,
        "--backend": "reference", "--device": "cuda:0", "--init": "w.safetensors", "--max-minutes": 1.5,
        "--save-minutes": 2.5, "--threads": 2, "--out": tmp_path / "run",
    }  # fmt: skip
    arguments = [part for pair in flags.items() for part in pair]
    done = vmkla(
        "train", "--data", "a", "--data", "b:c.txt", "--val", "d", *arguments, "--resume", "--compile",
        "--no-curves", "--augment", "flip=0", "--augment", "rotate_deg=90", "--json",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert done.json["best_dice"] is None and done.json["finished"] is False
    config = seen[0]
    assert [str(source) for source in config.data] == ["a", "b:c.txt"]
    assert [str(source) for source in config.val] == ["d"]
    assert (config.model_config.name, config.model_config.decoder_block) == ("tiny", "ss2d")
    assert (config.augment.flip, config.augment.rotate_deg, config.augment.colour) == (0, 90, 1)
    expected = {
        "image_size_hw": (64, 96), "roi": "auto", "rendered": 7, "epochs": 3, "batch_size": 5, "lr": 0.002,
        "min_lr": 0.0002, "weight_decay": 0.03, "t_max_epochs": 11, "warmup_epochs": 0.5, "ema_decay": 0.9,
        "grad_clip": 2.5, "bce_weight": 0.25, "dice_weight": 0.75, "seed": 9, "threshold": 0.4,
        "backend": "reference", "device": "cuda:0", "init": Path("w.safetensors"), "init_encoder": None,
        "max_minutes": 1.5, "save_minutes": 2.5, "threads": 2, "out_dir": tmp_path / "run", "resume": True,
        "compile": True, "curves": False,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_defaults_are_those_of_the_configuration(
    vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainConfig] = []

    def record(config: TrainConfig, **_: object) -> TrainResult:
        seen.append(config)
        return TrainResult(None, None, float("nan"), 0, 0, True, ())

    monkeypatch.setattr("vmkla.training.train", record)
    assert vmkla("train", "--data", "a", "--val", "b", "--out", tmp_path).status == 0
    expected = TrainConfig(out_dir=tmp_path, data=seen[0].data, val=seen[0].val)
    assert seen[0].to_dict() == expected.to_dict()
    monkeypatch.chdir(tmp_path)
    for folder in ("nano", "nano-2"):  # numbered when taken; --resume goes on with the last
        assert vmkla("train", "--data", "a", "--val", "b").status == 0
        assert seen[-1].out_dir == Path("runs/train") / folder
        seen[-1].out_dir.mkdir(parents=True)
    assert vmkla("train", "--data", "a", "--val", "b", "--resume").status == 0
    assert seen[-1].out_dir == Path("runs/train/nano-2")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--val", "x"), 2, "--data"),
        (("--data", "missing", "--val", "missing"), 3, "missing"),
        (("--data", "x", "--val", "x", "--model", "huge"), 2, "huge"),
        (("--data", "x", "--val", "x", "--decoder-block", "cake"), 2, "cake"),
        (("--data", "x", "--val", "x", "--imgsz", "100"), 3, "128x128"),
        (("--data", "x", "--val", "x", "--lr", "-1"), 2, "lr"),
        (("--data", "x", "--val", "x", "--threshold", "7"), 2, "threshold"),
        (("--data", "x", "--val", "x", "--augment", "sparkle=1"), 2, "sparkle"),
        (("--data", "x", "--val", "x", "--augment", "flip=often"), 2, "flip=often"),
    ],
)
def test_wrong_values(
    vmkla: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, status: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = vmkla("train", *arguments, "--out", tmp_path / "run")
    assert done.status == status and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
