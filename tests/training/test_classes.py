"""Several classes: they are learned, named in the weights' file, and judged class by class."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.data.labelled_folders import write_synapse
from tests.training.small_networks import Convolutions, Settings
from tests.training.tiny_runs import TINY
from vmkla.data import open_dataset
from vmkla.errors import BadInputError
from vmkla.models.checkpoints import load_weights
from vmkla.training import TrainConfig, train
from vmkla.training.validation import overlap


@pytest.fixture
def organs(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A run on slices with organs 1, 5 and 8 of nine classes."""
    data = open_dataset(f"synapse={write_synapse(tmp_path / 'synapse')}")
    return dataclasses.replace(
        config,
        data=data.train,
        val=data.val,
        model=dataclasses.replace(TINY, num_classes=data.num_classes, drop_path=0.0),
        class_names=data.class_names,
        image_size_hw=(64, 64),
    )


def test_a_run_learns_classes_and_its_file_names_them(organs: TrainConfig) -> None:
    """By convolutions, which learn grey values in seconds; then one epoch of the network itself."""
    config = dataclasses.replace(organs, epochs=30, lr=3e-2, warmup_epochs=1.0)
    result = train(config, network=lambda _: Convolutions(Settings(width=16, num_classes=9)))
    first, last = result.history[0], result.history[-1]
    assert first.train_loss > 2  # chance among nine: ln 9 of cross-entropy, and a Dice loss near 1
    assert last.train_loss < 1 and first.val_dice < 0.3 < 0.4 < result.best_dice
    ours = train(dataclasses.replace(organs, epochs=1, out_dir=organs.out_dir.with_name("ours")))
    best = load_weights(ours.best_weights or "")
    assert best.class_names == organs.class_names and best.config.num_classes == 9


def test_more_classes_than_outputs_are_refused(organs: TrainConfig) -> None:
    few = dataclasses.replace(organs.model_config, num_classes=3)
    with pytest.raises(BadInputError, match="a mask holds class 8, and the network knows background, a, b"):
        train(dataclasses.replace(organs, model=few, class_names=("background", "a", "b")))
    one = dataclasses.replace(organs.model_config, num_classes=1)
    with pytest.raises(BadInputError, match="a mask holds class 8, and the network knows polyp"):
        train(dataclasses.replace(organs, model=one, class_names=None))


def test_overlap_is_the_mean_over_what_is_in_either_map() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        classes = rng.integers(2, 6)
        truth, found = (rng.integers(0, classes, (7, 9)).astype(np.uint8) for _ in range(2))
        truth[truth == 2] = 0
        dice, iou = [], []
        for c in range(1, classes):
            a, b = {*zip(*np.nonzero(truth == c), strict=True)}, {*zip(*np.nonzero(found == c), strict=True)}
            if a | b:
                dice.append(2 * len(a & b) / (len(a) + len(b)))
                iou.append(len(a & b) / len(a | b))
        assert overlap(found, truth) == pytest.approx((np.mean(dice), np.mean(iou)))
    nothing = np.zeros((3, 3), np.uint8)
    assert overlap(nothing, nothing) == (1.0, 1.0)
    assert overlap(nothing, nothing + np.uint8(1)) == (0.0, 0.0)
