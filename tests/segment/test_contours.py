"""vmkla.segment.contours: smooth outlines that follow the mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vmkla.segment.contours import REACH_PER_SIDE, SMOOTHING_PER_SIDE, smooth_outlines
from vmkla.segment.findings import Findings, find
from vmkla.segment.operating_point import OperatingPoint
from vmkla.segment.preprocess import Rect


def comb(height: int, width: int) -> Findings:
    """What a network of 192 pixels a side leaves: teeth of one and two of its pixels along an edge."""
    probability = np.zeros((1, 192, 192), np.float32)
    probability[0, 60:130, 40:150] = 1
    probability[0, 57:60, 44:146:4] = 1
    probability[0, 130:132, 44:146:3] = 1
    return find(probability, Rect(0, 0, width, height), (height, width), OperatingPoint(0.5))


@pytest.mark.parametrize("hw", [(360, 480), (1080, 1920)])
def test_the_line_follows_the_mask(hw: tuple[int, int]) -> None:
    """Pixels that the outline judges otherwise than the mask lie as close to its edge as stated."""
    reach_px = REACH_PER_SIDE * min(hw) + 1 + SMOOTHING_PER_SIDE * min(hw) / 2
    assert reach_px < 3 * hw[0] / 192, "three pixels of the network; the teeth are as long"
    findings = comb(*hw)
    (region,), _ = smooth_outlines(findings.mask, 1, findings.regions[0].box, most=8)
    drawn = np.zeros(hw, np.uint8)
    curves = [np.rint(16 * path).astype(np.int32) for path in region.paths]
    cv2.fillPoly(drawn, curves, 1, cv2.LINE_8, 4)
    mask = findings.mask
    from_edge = np.where(
        mask > 0,
        cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE),
        cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE),
    )
    assert from_edge[drawn != mask].max() <= reach_px


@pytest.mark.parametrize("hw", [(360, 480), (1080, 1920)])
def test_combs_are_smoothed(hw: tuple[int, int]) -> None:
    findings = comb(*hw)
    (region,), _ = smooth_outlines(findings.mask, 1, findings.regions[0].box, most=8)
    (path,) = region.paths
    box = findings.regions[0].box
    smooth_px = float(np.linalg.norm(path - np.roll(path, 1, axis=0), axis=1).sum())
    (contour,), _ = cv2.findContours(findings.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    assert cv2.arcLength(contour, True) > 1.3 * 2 * (box.w + box.h)
    assert smooth_px < 1.1 * 2 * (box.w + box.h)
