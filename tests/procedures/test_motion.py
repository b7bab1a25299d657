"""vmkla.procedures.motion: shift, turn and scale of a region, or the word that it is lost."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmkla.procedures.motion import follow, follow_all
from vmkla.procedures.scene import thumbnail
from vmkla.segment.preprocess import Rect

Image = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


def texture(seed: int, height: int, width: int) -> Image:
    """A smooth random frame whose detail is a tenth of its side."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), min(height, width) / 50)
    return np.clip(120 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def similarity(shift: tuple[float, float], turn: float, scale: float, centre: tuple[float, float]) -> Matrix:
    """Turn and scale about a centre, then shift: (2, 3)."""
    matrix = np.asarray(cv2.getRotationMatrix2D(centre, math.degrees(turn), scale), np.float64)
    matrix[:, 2] += shift
    return matrix


def moved(rgb: Image, motion: Matrix) -> Image:
    return np.asarray(
        cv2.warpAffine(rgb, motion, rgb.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT),
        np.uint8,
    )


def corners(box: Rect) -> Matrix:
    x, y = (box.x, box.x + box.w - 1), (box.y, box.y + box.h - 1)
    return np.array([[x[i], y[j], 1] for i in (0, 1) for j in (0, 1)], np.float64)


@pytest.mark.parametrize("hw", [(120, 160), (360, 480), (1080, 1920), (1280, 720)])
@pytest.mark.parametrize(
    "amount", [(0, 0, 0, 1), (0.03, -0.02, 0, 1), (-0.02, 0.03, 0.08, 1.04), (0.01, 0, -0.05, 0.93)]
)
def test_a_known_motion_is_found(hw: tuple[int, int], amount: tuple[float, float, float, float]) -> None:
    height, width = hw
    side = min(hw)
    box = Rect(round(0.4 * width), round(0.35 * height), round(0.25 * side), round(0.2 * side))
    centre = (box.x + box.w / 2, box.y + box.h / 2)
    wanted = similarity((amount[0] * side, amount[1] * side), amount[2], amount[3], centre)
    first = texture(1, height, width)
    found = follow(thumbnail(first), thumbnail(moved(first, wanted)), box)
    assert found is not None
    away_px = np.abs(corners(box) @ (found - wanted).T).max()
    assert away_px < 0.5 * side / 120  # half a pixel of the thumbnail


@settings(max_examples=25, deadline=None)
@given(
    shift=st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
    turn=st.floats(-0.1, 0.1),
    scale=st.floats(0.92, 1.08),
    seed=st.integers(0, 1000),
)
def test_any_small_motion_is_found(shift: tuple[float, float], turn: float, scale: float, seed: int) -> None:
    box = Rect(100, 80, 70, 60)
    wanted = similarity(shift, turn, scale, (135, 110))
    first = texture(seed, 240, 320)
    found = follow(thumbnail(first), thumbnail(moved(first, wanted)), box)
    assert found is not None
    assert np.abs(corners(box) @ (found - wanted).T).max() < 3


def test_most_unrelated_frames_are_lost() -> None:
    frames = [thumbnail(texture(seed, 240, 320)) for seed in range(12)]
    found = [
        follow(first, second, Rect(100, 80, 80, 80)) is not None
        for first in frames
        for second in frames
        if first is not second
    ]
    assert np.mean(found) < 0.15


def test_a_region_that_is_covered_is_lost() -> None:
    first = texture(1, 240, 320)
    second = first.copy()
    second[40:200, 60:260] = texture(2, 160, 200)
    assert follow(thumbnail(first), thumbnail(second), Rect(120, 90, 60, 60)) is None


@pytest.mark.parametrize(
    "box", [Rect(0, 0, 320, 240), Rect(0, 0, 1, 1), Rect(319, 239, 1, 1), Rect(0, 100, 320, 1)]
)
def test_boxes_at_the_limits(box: Rect) -> None:
    first = texture(1, 240, 320)
    wanted = similarity((3, 2), 0, 1, (0, 0))
    found = follow(thumbnail(first), thumbnail(moved(first, wanted)), box)
    assert found is None or np.abs(found - wanted)[:, 2].max() < 8


@pytest.mark.parametrize("hw", [(1, 1), (2, 300), (16, 16), (33, 20)])
def test_tiny_and_flat_frames_do_not_fail(hw: tuple[int, int]) -> None:
    for rgb in (texture(1, *hw), np.zeros((*hw, 3), np.uint8)):
        found = follow(thumbnail(rgb), thumbnail(rgb), Rect(0, 0, hw[1], hw[0]))
        assert found is None or np.isfinite(found).all()


def test_several_regions_are_followed_as_each_by_itself() -> None:
    rgb = texture(3, 360, 480)
    before, after = thumbnail(rgb), thumbnail(moved(rgb, similarity((9, -6), 0.02, 1.02, (240, 180))))
    boxes = [Rect(60, 60, 80, 60), Rect(300, 200, 90, 90), Rect(200, 20, 40, 40)]
    together = follow_all(before, after, boxes)
    assert follow_all(before, after, []) == []
    for box, motion in zip(boxes, together, strict=True):
        alone = follow(before, after, box)
        assert motion is not None and alone is not None
        np.testing.assert_allclose(motion, alone)
