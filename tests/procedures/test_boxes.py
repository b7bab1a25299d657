"""vmkla.procedures.boxes: geometry by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vmkla.procedures import boxes
from vmkla.segment.preprocess import Rect


def test_overlaps() -> None:
    first, second = (0.0, 0.0, 10.0, 10.0), (5.0, 5.0, 10.0, 5.0)
    assert boxes.shared_area(first, second) == 25
    assert boxes.iou(first, second) == pytest.approx(25 / 125)
    assert boxes.coverage(second, first) == 0.5
    assert boxes.iou(first, (10.0, 0.0, 5.0, 5.0)) == 0
    assert boxes.enclosing(first, second) == (0, 0, 15, 10)


def test_a_motion_moves_the_centre_and_scales_the_sides() -> None:
    turn = math.radians(90)
    motion = 2 * np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0]])
    motion[:, 2] = (100, 7)
    # The centre (20, 10) is turned to (-10, 20), doubled and shifted.
    assert boxes.moved((15.0, 8.0, 10.0, 4.0), motion) == pytest.approx((80 - 10, 47 - 4, 20, 8))


def test_boxes_that_are_shifted_widened_and_mixed() -> None:
    assert boxes.centred_within((0.0, 0.0, 4.0, 4.0), (10.0, -5.0, 10.0, 10.0)) == (8, 0, 4, 4)
    assert boxes.centred_within((12.0, 0.0, 4.0, 4.0), (10.0, -5.0, 10.0, 10.0)) == (12, 0, 4, 4)
    assert boxes.widened((0.0, 0.0, 3.0, 4.0), 0.2) == pytest.approx((-1, -1, 5, 6))
    assert boxes.blended((0.0, 0.0, 4.0, 4.0), (10.0, 0.0, 8.0, 4.0), 0.25) == pytest.approx((2.5, 0, 5, 4))
    assert boxes.to_rect((1.5, -0.5, 2.0, 0.1)) == Rect(1, -1, 3, 1)
