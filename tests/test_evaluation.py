"""Judging a runner: the figures against a count by hand, and the way of the pixels against ``infer``'s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from vmkla.errors import BadInputError, UsageError
from vmkla.evaluation import evaluate
from vmkla.metadata import ArtefactMetadata
from vmkla.preprocess import PreprocessSpec
from vmkla.runner import RunnerSpec


@dataclass(frozen=True)
class Labelled:
    """An image and its truth."""

    name: str
    image_rgb: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


class RedRunner:
    """A network whose probability of a pixel is its red channel."""

    name = "red"

    def __init__(self, height: int, width: int, *, roi: str = "none", batch: int | None = None) -> None:
        metadata = ArtefactMetadata(
            model_config={},
            class_names=("polyp",),
            threshold=0.5,
            preprocess=PreprocessSpec(height, width, roi),
            weights_sha256="0" * 64,
        )
        self.spec = RunnerSpec(
            height, width, batch, 1, metadata, "red.onnx", "1" * 64, "numpy", "cpu", "native"
        )

    def infer(self, frames_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, h, w, 3) -> (n, 1, h, w)."""
        assert frames_rgb.shape == (self.spec.batch or 1, self.spec.height, self.spec.width, 3)
        return (frames_rgb[..., 0][:, None] / np.float32(255)).astype(np.float32)

    def close(self) -> None:
        """Nothing to release."""


def picture(red: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Red where told; the other channels say nothing."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*red.shape, 3)).astype(np.uint8)
    image[..., 0] = np.where(red, 255, 0)
    return image


def four_images() -> list[Labelled]:
    """A half-found polyp, a missed one, a false alarm and a clean frame, of different sizes."""
    left = np.zeros((40, 60), np.bool_)
    left[:, :30] = True
    top = np.zeros((40, 60), np.bool_)
    top[:20] = True
    nothing = np.zeros((20, 20), np.bool_)
    spot = nothing.copy()
    spot[5:10, 5:15] = True
    return [
        Labelled("half", picture(left), top),
        Labelled("missed", picture(nothing), spot),
        Labelled("alarm", picture(spot), nothing),
        Labelled("clean", picture(nothing), nothing),
    ]


def test_figures_against_a_count_by_hand() -> None:
    report: dict[str, Any] = {}
    images = four_images()
    for image in images:
        runner = RedRunner(*image.mask.shape)  # the network's size is the image's: no interpolation
        report[image.name] = evaluate(runner, [image])["each"][0]
    assert [report[image.name]["dice"] for image in images] == [0.5, 0.0, 0.0, 1.0]
    assert report["half"]["iou"] == pytest.approx(1 / 3)
    assert [report[image.name]["max_probability"] for image in images] == [1.0, 0.0, 1.0, 0.0]


def test_totals() -> None:
    images = four_images()[1:]  # three of one size
    result = evaluate(RedRunner(20, 20), images)
    assert result["images"] == 3 and result["resolution"] == "native" and result["threshold"] == 0.5
    assert result["per_image"]["dice"] == pytest.approx(1 / 3)
    assert result["per_image"]["dice_std"] == pytest.approx(np.std([0, 0, 1]))
    low, high = result["per_image"]["dice_ci95"]
    assert 0 <= low < 1 / 3 < high <= 1
    # One matrix over 1200 pixels: 50 missed, 50 false, 1100 right.
    assert result["global"]["dsc"] == 0.0 and result["global"]["miou"] == 0.0
    assert result["global"]["accuracy"] == pytest.approx(1100 / 1200)
    assert result["without_polyp"] == {"images": 2, "false_alarms": 1}
    assert result["with_polyp"] == {"images": 1, "missed": 1}
    assert set(result["global"]) == {"dsc", "miou", "accuracy", "sensitivity", "specificity"}


def test_the_way_of_the_pixels_written_out() -> None:
    """Shrink by area, threshold after linear enlargement: against OpenCV called here."""
    rng = np.random.default_rng(1)
    coarse = rng.random((6, 8)) < 0.4
    red = np.kron(coarse, np.ones((13, 11))).astype(np.bool_)
    truth = np.roll(red, 4, 1)
    image = Labelled("x", picture(red), truth)
    result = evaluate(RedRunner(32, 32), [image])["each"][0]
    small = cv2.resize(image.image_rgb, (32, 32), interpolation=cv2.INTER_AREA)[..., 0] / np.float32(255)
    found = cv2.resize(small.astype(np.float32), red.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
    assert result["dice"] == pytest.approx(2 * (found & truth).sum() / (found.sum() + truth.sum()))
    at_model = evaluate(RedRunner(32, 32), [image], at_native=False)
    share = cv2.resize(truth.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA) >= 0.5
    expected = 2 * ((small >= 0.5) & share).sum() / ((small >= 0.5).sum() + share.sum())
    assert at_model["each"][0]["dice"] == pytest.approx(expected) and at_model["resolution"] == "32x32"


def test_threshold_batch_and_field_of_view() -> None:
    mask = np.zeros((40, 40), np.bool_)
    mask[10:20, 10:20] = True
    image = Labelled("x", (mask[..., None] * np.array([120, 200, 200])).astype(np.uint8) + np.uint8(60), mask)
    assert evaluate(RedRunner(40, 40), [image])["per_image"]["dice"] == 1.0  # 180/255 against 0.5
    strict = evaluate(RedRunner(40, 40, batch=3), [image], threshold=0.8)
    assert strict["per_image"]["dice"] == 0.0 and strict["threshold"] == 0.8
    framed = np.zeros((80, 100, 3), np.uint8)
    framed[20:60, 30:70] = image.image_rgb
    truth = np.zeros((80, 100), np.bool_)
    truth[20:60, 30:70] = mask
    report = evaluate(RedRunner(40, 40, roi="auto"), [Labelled("y", framed, truth)])
    assert report["per_image"]["dice"] > 0.9


def test_nonsense_is_refused() -> None:
    with pytest.raises(BadInputError, match="no labelled image"):
        evaluate(RedRunner(32, 32), [])
    with pytest.raises(UsageError, match="between 0 and 1"):
        evaluate(RedRunner(32, 32), four_images(), threshold=7)


def test_a_real_runner_on_a_real_folder(tiny_onnx: Path, tmp_path: Path) -> None:
    from labelled_folders import write_folder

    from vmkla.data.folder import DataSource, iter_samples
    from vmkla.engines import load_runner

    runner = load_runner(tiny_onnx, threads=1)
    try:
        samples = list(iter_samples([DataSource(write_folder(tmp_path / "set", 5))]))
        result = evaluate(runner, samples)
        assert result == evaluate(runner, samples)
        assert result["images"] == 5 and result["without_polyp"]["images"] == 1
        assert 0 < max(each["max_probability"] for each in result["each"]) < 1
    finally:
        runner.close()


@pytest.mark.needs_data
def test_validation_in_training_agrees_with_the_runner_on_real_images(
    shared_data: Path, tmp_path: Path
) -> None:
    """What the loop logs at the network's resolution is what ``evaluate`` says of the saved weights."""
    from vmkla.config import ModelConfig
    from vmkla.data.folder import DataSource, iter_samples
    from vmkla.engines import load_runner
    from vmkla.training import TrainConfig, train

    stems = (shared_data / "data/splits/val_PolypGen.txt").read_text(encoding="utf-8").split()
    sources = []
    for name, chosen in (("train", stems[:8]), ("val", stems[40:60])):
        (tmp_path / name).write_text("\n".join(chosen), encoding="utf-8")
        sources.append(DataSource(shared_data / "data/polypgen", tmp_path / name))
    tiny = ModelConfig("t", dim=16, encoder_depths=(1, 1, 1, 1), decoder_depths=(1, 1, 1, 1), d_state=2)
    config = TrainConfig(
        out_dir=tmp_path / "run", data=sources[:1], val=sources[1:], model=tiny, image_size_hw=(64, 96),
        roi="auto", epochs=2, batch_size=4, lr=2e-3, curves=False, threads=1,
    )  # fmt: skip
    done = train(config)
    runner = load_runner(done.last_weights or "", runtime="torch")
    result = evaluate(runner, iter_samples(config.val), at_native=False)
    runner.close()
    assert result["per_image"]["dice"] == pytest.approx(done.history[-1].val_dice, abs=1e-3)
    assert result["per_image"]["iou"] == pytest.approx(done.history[-1].val_iou, abs=1e-3)
