"""What a training configuration refuses, and how it is written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmkla.config import ModelConfig
from vmkla.data.sources import DataSource
from vmkla.errors import ShapeError, UsageError
from vmkla.training.config import TrainConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": -1}, "batch_size"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"min_lr": 1.0}, "is above lr"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"threshold": 7.0}, "threshold"),
        ({"threads": 0}, "threads"),
        ({"max_minutes": 0.0}, "max_minutes"),
        ({"roi": "middle"}, "roi"),
        ({"precision": "fp8"}, "precision"),
        ({"rendered": -1}, "rendered"),
        ({"ce_weight": 0.0, "dice_weight": 0.0}, "no loss left"),
        ({"quiet_share": 1.0}, "quiet_share"),
        ({"quiet_share": float("nan")}, "quiet_share"),
        ({"teacher_weight": 0.0}, "teacher_weight"),
        ({"init": Path("a"), "init_encoder": Path("b")}, "choose one"),
        ({"model": "huge"}, "no preset"),
        ({"class_names": ("polyp", "tool")}, r"2 class names \(polyp, tool\) for 1 output"),
        ({"model": ModelConfig(num_classes=3), "class_names": ("polyp",)}, "1 class names"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(out_dir=Path("run"), **changes)


def test_a_size_the_network_cannot_take_is_refused() -> None:
    with pytest.raises(ShapeError, match="multiples of 32"):
        TrainConfig(out_dir=Path("run"), image_size_hw=(200, 192))


def test_defaults_are_the_papers_recipe() -> None:
    config = TrainConfig(out_dir=Path("run"))
    assert (config.epochs, config.batch_size, config.lr, config.min_lr, config.t_max_epochs) == (
        300,
        32,
        1e-4,
        1e-5,
        50,
    )
    assert config.image_size_hw == (256, 256) and (config.ce_weight, config.dice_weight) == (1, 1)


def test_the_papers_augmentation_is_flips_rotation_and_crop() -> None:
    changes = {name: value for name, value in vars(TrainConfig(out_dir=Path("run")).augment).items() if value}
    assert changes.keys() == {"flip", "rotate_deg", "scale", "shift"}


def test_classes_have_names() -> None:
    assert TrainConfig(out_dir=Path("run")).names_of_classes == ("polyp",)
    config = TrainConfig(out_dir=Path("run"), model=ModelConfig(num_classes=3))
    assert config.names_of_classes == ("background", "class 1", "class 2")


def test_it_is_written_down_whole() -> None:
    config = TrainConfig(
        out_dir=Path("run"), data=(DataSource(Path("a"), Path("b.txt")),), image_size_hw=(64, 96)
    )
    values = json.loads(json.dumps(config.to_dict()))
    assert values["data"] == ["a:b.txt"] and values["image_size_hw"] == [64, 96]
    assert ModelConfig.from_dict(values["model"]) == config.model_config
    assert set(values) == set(TrainConfig.__dataclass_fields__)
