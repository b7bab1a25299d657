"""A quiet share makes a network silent on frames without a polyp, and it still finds polyps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.training.tiny_runs import TINY
from vmkla.data import AugmentConfig, DataSource
from vmkla.data.arrays import LabelledArrays
from vmkla.models.checkpoints import load_weights
from vmkla.training import TrainConfig, train
from vmkla.training.inputs import Inputs
from vmkla.video.media.clip import Scene

SIDE, RENDERED = 32, 96
FRAMES_PER_SCENE, FRAMES_APART = 20, 90
LEAST = 0.06
"""Smallest area of a polyp that is trained on and judged, as a share of the view."""


def frames(scenes: range) -> LabelledArrays:
    """Rendered frames that show a polyp well, or none; each is half of a view's sides, around the polyp."""
    images, masks = [], []
    for seed in scenes:
        scene, rng = Scene(seed, RENDERED, RENDERED), np.random.default_rng(seed)
        for number in range(FRAMES_PER_SCENE):
            image, mask = scene.frame(number * FRAMES_APART)
            places = np.argwhere(mask)
            centre = places.mean(0) if len(places) else rng.uniform(0.3, 0.7, 2) * RENDERED
            shift = rng.uniform(-0.15, 0.15, 2) * RENDERED
            top, left = (centre + shift - RENDERED / 4).clip(0, RENDERED / 2).astype(int)
            part = np.s_[top : top + RENDERED // 2, left : left + RENDERED // 2]
            small = cv2.resize(mask[part], (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0
            if small.any() and small.mean() < LEAST:
                continue
            images.append(cv2.resize(image[part], (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            masks.append(small.astype(np.uint8))
    return LabelledArrays(tuple(map(str, range(len(images)))), np.stack(images), np.stack(masks))


def chosen(arrays: LabelledArrays, rows: np.ndarray) -> LabelledArrays:  # type: ignore[type-arg]
    names = tuple(arrays.names[row] for row in rows)
    return LabelledArrays(names, arrays.images_rgb[rows], arrays.masks[rows])


def write(folder: Path, arrays: LabelledArrays) -> DataSource:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for name, image, mask in zip(arrays.names, arrays.images_rgb, arrays.masks, strict=True):
        cv2.imwrite(str(folder / "images" / f"{name}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), 255 * mask)
    return DataSource(folder)


def alarms_and_found(weights: Path, judged: LabelledArrays) -> tuple[float, float]:
    """Shares of the frames without a polyp that are marked, and of the others whose polyp is touched."""
    model = load_weights(weights).model
    with torch.no_grad():
        marked = (model(Inputs(torch.device("cpu"), 1)(judged)[0])[:, 0] >= 0).numpy()
    touched = (marked & (judged.masks > 0)).any((1, 2))
    return float(marked.any((1, 2))[judged.quiet].mean()), float(touched[~judged.quiet].mean())


def trained(folder: Path, seed: int) -> dict[str, tuple[float, float]]:
    """Train once, and go on from there with and without a quiet share for as many steps.

    Returns:
        ``alarms_and_found`` of each training.
    """
    made = frames(range(1000 * seed, 1000 * seed + 60))
    with_polyp, without = np.flatnonzero(~made.quiet), np.flatnonzero(made.quiet)
    judged = frames(range(1000 * seed + 500, 1000 * seed + 530))
    assert judged.quiet.sum() >= 150 and (~judged.quiet).sum() >= 60
    first = TrainConfig(
        out_dir=folder / "first",
        data=(write(folder / "data", chosen(made, np.r_[with_polyp, without[::30][:10]])),),
        val=(write(folder / "val", chosen(judged, np.flatnonzero(~judged.quiet)[:4])),),
        model=dataclasses.replace(TINY, drop_path=0.0),
        image_size_hw=(SIDE, SIDE),
        batch_size=12,
        epochs=round(600 * 12 / len(with_polyp)),
        lr=1e-2,
        min_lr=3e-4,
        t_max_epochs=0,
        warmup_epochs=1,
        ema_decay=0.9,
        augment=dataclasses.replace(AugmentConfig.off(), flip=0.5),
        seed=seed,
        threads=1,
        curves=False,
        tensorboard=False,
    )
    train(first)
    weights = first.out_dir / "last.safetensors"
    # A batch holds 12 images with a polyp, or 10 beside 2 quiet ones: fewer epochs have as many steps.
    without_share = dataclasses.replace(first, out_dir=folder / "without", init=weights)
    with_share = dataclasses.replace(
        without_share, out_dir=folder / "with", quiet_share=2 / 12, epochs=round(10 / 12 * first.epochs)
    )
    found = {}
    for config in (without_share, with_share):
        train(config)
        found[config.out_dir.name] = alarms_and_found(config.out_dir / "last.safetensors", judged)
    return found


@pytest.mark.slow
def test_a_quiet_share_brings_fewer_alarms_and_keeps_the_polyps(tmp_path: Path) -> None:
    """Seeds 2 and 3 gave alarms on 0.96 and 0.94 of the quiet frames without a share, 0.51 and 0.50 with one;
    of the polyps 0.92 and 0.84 were found without, 0.85 and 0.79 with one."""
    shares = trained(tmp_path, seed=2)
    (alarms, found), (quiet_alarms, quiet_found) = shares["without"], shares["with"]
    assert found > 0.7 and quiet_found > 0.7
    assert alarms > 0.5 and quiet_alarms < 0.75 * alarms
