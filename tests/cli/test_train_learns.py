"""``vmkla train`` learns: within two minutes of one CPU thread, on rendered frames, judged on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest

from vmkla.data import iter_samples
from vmkla.data.sources import DataSource
from vmkla.engines.runners.torch_runner import TorchRunner
from vmkla.evaluation import evaluate
from vmkla.video.media.clip import Scene

CLIPS = ((184, 570, 870), (192, 180, 360))
"""Seeds of two clips, and the stretch of each in which a polyp is near: first and last frame."""
EVERY, SIDE_PX = 5, 96


def write_frames(root: Path) -> dict[str, int]:
    """Every other frame to train on; of those between, a quarter to choose by and the rest to judge."""
    counts = {"train": 0, "val": 0, "test": 0}
    for name in counts:
        for kind in ("images", "masks"):
            (root / name / kind).mkdir(parents=True)
    for seed, first, last in CLIPS:
        scene = Scene(seed, SIDE_PX, SIDE_PX)
        for number, index in enumerate(range(first, last + 1, EVERY)):
            name = "train" if number % 2 == 0 else "val" if number % 8 == 3 else "test"
            image_rgb, mask = scene.frame(index)
            stem = f"{seed}-{index}.png"
            cv2.imwrite(str(root / name / "images" / stem), image_rgb[..., ::-1])
            cv2.imwrite(str(root / name / "masks" / stem), mask)
            counts[name] += 1
    return counts


@pytest.mark.slow
def test_two_minutes_reach_a_dice_of_nine_tenths_on_frames_held_out(vmkla: Any, tmp_path: Path) -> None:
    """That learning works, and nothing about accuracy: the frames held out are of the same clips."""
    assert write_frames(tmp_path) == {"train": 50, "val": 13, "test": 35}
    done = vmkla(
        "train", "--data", tmp_path / "train", "--val", tmp_path / "val", "--out", tmp_path / "run",
        "--imgsz", 64, "--batch", 4, "--epochs", 64, "--lr", 3e-3, "--t-max-epochs", 0, "--warmup-epochs", 2,
        "--ema-decay", 0.95, "--augment", "off", "--augment", "flip=0.5", "--threads", 1, "--json",
        "--no-curves", "--no-tensorboard",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    runner = TorchRunner.from_file(Path(done.json["best_weights"]))
    found = evaluate(runner, iter_samples([DataSource(tmp_path / "test")]))
    runner.close()
    assert found["images"] == 35 and found["resolution"] == "native"
    assert found["per_image"]["dice"] >= 0.9, found["per_image"]
