"""``vmkla train``: flags reach the configuration, results reach stdout, errors end with their status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.data.labelled_folders import (
    write_folder,
    write_pranet,
    write_split_polyps,
    write_stems,
    write_synapse,
)
from vmkla.models.checkpoints import load_weights
from vmkla.training import Ranks
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


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["isic17", "isic18", "ph2", "polyp", "pranet", "synapse", "plain"])
def test_every_recipe_starts_on_a_miniature_of_its_layout(vmkla: Any, tmp_path: Path, recipe: str) -> None:
    """One epoch each; without --val, the validation set is the layout's own or a tenth split off."""
    root, text = tmp_path / "set", f"{recipe}={tmp_path / 'set'}"
    if recipe in ("isic17", "isic18"):
        for part, count in (("train", 10), ("val", 4)):
            write_folder(root / part, count, first_seed=50 * len(part))
    elif recipe == "ph2":
        write_stems(root, [f"IMD{number:03d}" for number in range(12)])
    elif recipe == "polyp":
        write_split_polyps(root)
    elif recipe == "pranet":
        text = f"polyp={write_pranet(root)}"
    elif recipe == "synapse":
        write_synapse(root)
    else:
        text = str(write_folder(root, 12))
    out = tmp_path / "run"
    size = ("--imgsz", "32", "--batch", 2, "--epochs", 1, "--no-curves", "--no-tensorboard", "--threads", 1)
    done = vmkla("train", "--data", text, *size, "--out", out, "--json")
    assert done.status == 0, done.stderr
    weights = load_weights(done.json["best_weights"])
    names = {"isic17": "lesion", "isic18": "lesion", "ph2": "lesion"}.get(recipe, "polyp")
    assert weights.class_names == ((names,) if recipe != "synapse" else weights.class_names)
    assert weights.config.num_classes == (9 if recipe == "synapse" else 1)
    counts = {"isic17": (9, 1), "isic18": (9, 1), "ph2": (5, 1), "synapse": (8, 4), "plain": (11, 1)}
    if recipe in counts:
        assert (weights.training["train_images"], weights.training["val_images"]) == counts[recipe]


def sources_of(seen: list[TrainConfig]) -> tuple[list[str], list[str]]:
    """What the last run would train and validate on."""
    return [str(source) for source in seen[-1].data], [str(source) for source in seen[-1].val]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """The configurations that the command gives to the loop, which is left out."""
    seen: list[TrainConfig] = []

    def record(config: TrainConfig, **_: object) -> TrainResult:
        seen.append(config)
        return TrainResult(None, None, float("nan"), 0, 0, False, ())

    monkeypatch.setattr("vmkla.training.train", record)
    return seen


def test_which_images_are_taken(vmkla: Any, tmp_path: Path, configured: list[TrainConfig]) -> None:
    """Training and validation sets, and never a test set."""
    parts, other = tmp_path / "parts", write_folder(tmp_path / "other", 12)
    for number, part in enumerate(("train", "val", "test")):
        write_folder(parts / part, 4, first_seed=100 * number)
    out = ("--out", tmp_path / "run")
    assert vmkla("train", "--data", parts, *out).status == 0
    assert sources_of(configured) == ([str(parts / "train")], [str(parts / "val")])
    assert vmkla("train", "--data", other, "--val", parts, *out).status == 0
    assert sources_of(configured) == ([str(other)], [str(parts / "val")])
    assert vmkla("train", "--data", parts, "--val", other, *out).status == 0
    assert sources_of(configured) == ([str(parts / "train")], [str(other)])
    assert vmkla("train", "--data", other, *out).status == 0
    train_set, val_set = sources_of(configured)
    assert "11 images" in train_set[0] and "1 images" in val_set[0]
    assert vmkla("train", "--data", other, "--split-seed", 3, *out).status == 0
    assert sources_of(configured) != (train_set, val_set)
    assert vmkla("train", "--data", "ph2", "--root", other, *out).status == 0
    assert configured[-1].names_of_classes == ("lesion",)
    assert vmkla("train", "--rendered", 8, "--val", other, *out).status == 0
    assert sources_of(configured) == ([], [str(other)])
    tests_alone = tmp_path / "tests-alone"
    write_folder(tests_alone / "test", 3)
    for flags, message in (
        (("--data", other, "--val", tests_alone), "has only test sets"),
        (("--data", tests_alone, "--val", other), "holds no training set"),
        (("--data", other, "--data", f"ph2={parts}"), "do not have the same classes"),
    ):
        done = vmkla("train", *flags, *out)
        assert done.status == 2 and message in done.stderr, done.stderr


def test_augmentation_by_name_and_by_number(
    vmkla: Any, labelled: Path, configured: list[TrainConfig]
) -> None:
    def augment(*flags: str) -> Any:
        arguments = [part for flag in flags for part in ("--augment", flag)]
        assert vmkla("train", "--data", labelled, "--out", labelled / "run", *arguments).status == 0
        return configured[-1].augment

    assert (augment().flip, augment().rotate_deg, augment().colour) == (0.5, 45, 0)
    strong = augment("strong", "blur=0.5")
    assert (strong.colour, strong.blur, strong.glare) == (1, 0.5, 0.15)
    assert not any(vars(augment("off")).values())


def test_several_processes_agree_on_a_folder(
    vmkla: Any, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Ranks] = []

    def record(config: TrainConfig, *, ranks: Ranks, **_: object) -> TrainResult:
        seen.append(ranks)
        return TrainResult(None, None, float("nan"), 0, 0, True, ())

    monkeypatch.setattr("vmkla.training.train", record)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    done = vmkla("train", "--data", labelled)
    assert done.status == 2 and "one folder to agree on" in done.stderr
    done = vmkla("train", "--data", labelled, "--out", tmp_path / "run", "--json")
    assert done.status == 0 and done.stdout == "" and seen == [Ranks(1, 1, 2)]  # the first one prints


def test_every_flag_reaches_the_configuration(
    vmkla: Any, tmp_path: Path, labelled: Path, configured: list[TrainConfig]
) -> None:
    """The loop is left out; what it would be given is what counts here."""
    flags = {
        "--model": "tiny", "--decoder-block": "ss2d", "--imgsz": "64,96", "--roi": "auto", "--rendered": 7,
        "--epochs": 3, "--batch": 5, "--lr": 0.002, "--min-lr": 0.0002, "--weight-decay": 0.03,
        "--t-max-epochs": 11, "--warmup-epochs": 0.5, "--ema-decay": 0.9, "--grad-clip": 2.5,
        "--ce-weight": 0.25, "--dice-weight": 0.75, "--seed": 9, "--threshold": 0.4,
        "--backend": "reference", "--device": "cuda:0", "--init": "w.safetensors", "--max-minutes": 1.5,
        "--save-minutes": 2.5, "--threads": 2, "--workers": 5, "--out": tmp_path / "run", "--drop-path": 0.1,
        "--precision": "fp16",
    }  # fmt: skip
    arguments = [part for pair in flags.items() for part in pair]
    done = vmkla(
        "train", "--data", labelled, "--data", f"{labelled}:{labelled / 'three.txt'}", "--val",
        f"{labelled}:{labelled / 'one.txt'}", *arguments, "--resume", "--compile", "--no-curves",
        "--no-tensorboard", "--no-deterministic", "--channels-last", "--augment", "strong",
        "--augment", "flip=0", "--augment", "rotate_deg=90", "--json",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    assert done.json["best_dice"] is None and done.json["finished"] is False
    config = configured[0]
    assert [str(source) for source in config.data] == [str(labelled), f"{labelled}:{labelled / 'three.txt'}"]
    assert [str(source) for source in config.val] == [f"{labelled}:{labelled / 'one.txt'}"]
    assert config.model_config.drop_path == 0.1
    assert (config.model_config.name, config.model_config.decoder_block) == ("tiny", "ss2d")
    assert (config.augment.flip, config.augment.rotate_deg, config.augment.colour) == (0, 90, 1)
    expected = {
        "image_size_hw": (64, 96), "roi": "auto", "rendered": 7, "epochs": 3, "batch_size": 5, "lr": 0.002,
        "min_lr": 0.0002, "weight_decay": 0.03, "t_max_epochs": 11, "warmup_epochs": 0.5, "ema_decay": 0.9,
        "grad_clip": 2.5, "ce_weight": 0.25, "dice_weight": 0.75, "seed": 9, "threshold": 0.4,
        "backend": "reference", "device": "cuda:0", "init": Path("w.safetensors"), "init_encoder": None,
        "max_minutes": 1.5, "save_minutes": 2.5, "threads": 2, "workers": 5, "out_dir": tmp_path / "run",
        "resume": True, "compile": True, "curves": False, "tensorboard": False, "precision": "fp16",
        "channels_last": True, "deterministic": False,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_defaults_are_those_of_the_configuration(
    vmkla: Any, tmp_path: Path, labelled: Path, configured: list[TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--data", labelled)
    assert vmkla("train", *given, "--out", tmp_path).status == 0
    expected = TrainConfig(out_dir=tmp_path, data=configured[0].data, val=configured[0].val)
    assert configured[0].to_dict() == expected.to_dict()
    monkeypatch.chdir(tmp_path)
    for folder in ("nano", "nano-2"):  # numbered when taken; --resume goes on with the last
        assert vmkla("train", *given).status == 0
        assert configured[-1].out_dir == Path("runs/train") / folder
        configured[-1].out_dir.mkdir(parents=True)
    assert vmkla("train", *given, "--resume").status == 0
    assert configured[-1].out_dir == Path("runs/train/nano-2")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "--data"),
        (("--data", "missing", "--val", "missing"), 3, "missing"),
        (("--data", "SET", "--model", "huge"), 2, "huge"),
        (("--data", "SET", "--decoder-block", "cake"), 2, "cake"),
        (("--data", "SET", "--imgsz", "100"), 3, "128x128"),
        (("--data", "SET", "--lr", "-1"), 2, "lr"),
        (("--data", "SET", "--threshold", "7"), 2, "threshold"),
        (("--data", "SET", "--augment", "sparkle=1"), 2, "sparkle"),
        (("--data", "SET", "--augment", "flip=often"), 2, "flip=often"),
    ],
)
def test_wrong_values(
    vmkla: Any,
    tmp_path: Path,
    labelled: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Any,
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(labelled) if argument == "SET" else argument for argument in arguments]
    done = vmkla("train", *arguments, "--out", tmp_path / "run")
    assert done.status == status and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""
