"""What is kept of images and recordings, with networks whose output is the red of their input."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.evaluation.colour_runners import ClassRunner, Labelled, RedRunner, labelled, picture
from vmkla.errors import BadInputError
from vmkla.segment.operating_point import OperatingPoint
from vmkla.tuning.collect import measure_lesions, measure_recording, open_recordings
from vmkla.tuning.fit import TuneRequest
from vmkla.tuning.run import check_minutes_ahead, lesions_up_to

HALF = OperatingPoint(0.5)
SIDE = 40
FRACTIONS = (0.0, 0.005, 0.02)  # of 1600 pixels: 0, 8 and 32


def red(*squares: tuple[int, int, int, int]) -> np.ndarray:
    """(SIDE, SIDE, 3): black with squares of (top, left, side, red)."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for top, left, side, level in squares:
        image[top : top + side, left : left + side, 0] = level
    return image


def test_the_largest_peak_over_each_lesion() -> None:
    """Three lesions: under a small strong and a large weak region, under none, and beside one."""
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[2:20, 2:20] = truth[25:30, 2:7] = truth[25:30, 25:30] = 1
    image = red((3, 3, 2, 255), (10, 10, 6, 204), (33, 2, 4, 255), (29, 29, 3, 153))
    rows, sequences = measure_lesions(
        RedRunner(SIDE, SIDE),
        [Labelled("a", image, truth, "seq"), Labelled("b", image, 0 * truth)],
        HALF,
        FRACTIONS,
    )
    expected = np.array([[1.0, 0.8, 0.8], [-math.inf] * 3, [0.6, 0.6, -math.inf]])
    order = np.lexsort(rows.T[::-1])[::-1]
    np.testing.assert_allclose(rows[order], expected[[0, 2, 1]], atol=1e-6)
    assert sequences == ["seq"] * 3


def test_a_lesion_is_found_by_its_own_class() -> None:
    truth, prediction = np.zeros((2, SIDE, SIDE), np.uint8)
    truth[2:10, 2:10], truth[20:30, 20:30] = 1, 2
    prediction[2:10, 2:10] = prediction[20:30, 20:30] = 1
    runner = ClassRunner(SIDE, SIDE, ("background", "a", "b"))
    rows, _ = measure_lesions(runner, [labelled("x", prediction, truth)], HALF, (0.0,))
    assert rows.tolist() == [[1.0], [-math.inf]]


def test_the_frames_of_images(tmp_path: Path) -> None:
    for index, image in enumerate((red(), red((3, 3, 2, 255), (10, 10, 6, 204)), red((0, 0, 3, 178)))):
        cv2.imwrite(str(tmp_path / f"f{index}.png"), image[..., ::-1])
    (recording,) = open_recordings([str(tmp_path)], 4.0)
    assert recording.expected_s == 0.75
    measured = measure_recording(RedRunner(SIDE, SIDE), recording, HALF, FRACTIONS)
    nothing = -math.inf
    expected = [[nothing] * 3, [1.0, 0.8, 0.8], [178 / 255, 178 / 255, nothing]]
    np.testing.assert_allclose(measured.frames.peaks, expected, atol=1e-6)
    assert measured.frames.times_s.tolist() == [0.0, 0.25, 0.5] and measured.frames.recorded_s == 0.75
    assert measured.missing == "" and len(measured.sha256) == 64
    with pytest.raises(BadInputError, match=r"have 0\.01 min"):
        check_minutes_ahead([recording], TuneRequest(alarms_per_minute=1.0))
    check_minutes_ahead([recording], TuneRequest(alarms_per_minute=300.0))


def test_lesions_are_counted_until_there_are_enough() -> None:
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[2:5, 2:5] = truth[10:12, 10:12] = 1
    image = picture(truth > 0)
    samples = [Labelled(f"{n}", image, truth if n % 2 else 0 * truth, f"seq {n // 4}") for n in range(8)]
    assert lesions_up_to(99, samples, 1) == 8 and lesions_up_to(3, iter(samples), 1) == 4
    assert lesions_up_to(99, samples, 1, holdout=True) == 4
    with pytest.raises(BadInputError, match="class 2"):
        lesions_up_to(99, [Labelled("x", image, 2 * truth)], 1)
