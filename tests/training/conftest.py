"""Fixtures of the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.labelled_folders import write_folder
from tests.training.tiny_runs import TINY
from vmkla.data.sources import DataSource
from vmkla.training import TrainConfig


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        out_dir=tmp_path / "run",
        data=(DataSource(write_folder(tmp_path / "train", 9)),),
        val=(DataSource(write_folder(tmp_path / "val", 4, first_seed=100)),),
        model=TINY,
        image_size_hw=(32, 64),
        epochs=3,
        batch_size=4,
        lr=1e-3,
        t_max_epochs=0,
        warmup_epochs=0.5,
        ema_decay=0.9,
        seed=3,
        threads=1,
        curves=False,
        tensorboard=False,
    )
