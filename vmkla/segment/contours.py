"""Smooth outlines of the regions of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.preprocess import Rect

SMOOTHING_PER_SIDE = 1 / 140
"""Standard deviation of the Gaussian that smooths a region, over the frame's shorter side. A network of 192
pixels a side leaves teeth of one to three of its pixels along an edge: the smallest that takes them away."""

REACH_PER_SIDE = 1.18 * SMOOTHING_PER_SIDE
"""Largest distance from the mask's edge to a pixel that the outline judges otherwise, over the shorter side.

A disc of radius 1.1774 sigma holds half of a Gaussian's weight, so a pixel with a mask of that radius around
it stays inside, and one without any mask so near stays outside. Rounding adds up to ``1 + sigma / 2`` px."""

_WORKING_SIGMA_PX = 2.0  # enough for a smooth curve; a larger frame is smoothed at a fraction of its size
_LEVEL = 127.5
_ALONG = np.array([1, 2, 3, 2, 1], np.float32) / 9  # takes away the steps of single pixels


@dataclass(frozen=True, eq=False)
class Outline:
    """The edge of one connected region.

    Attributes:
        paths: closed curves, (n, 2) float32 each, x and y of points in the frame, px: the outer edge and the
            edges of holes. Pixel centres have whole numbers.
        box: around the region's pixels, px.
    """

    paths: tuple[npt.NDArray[np.float32], ...]
    box: Rect


def smooth_outlines(mask: npt.NDArray[np.uint8], value: int, around: Rect) -> list[Outline]:
    """Find the smoothed outline of every region of a class.

    Every region has one, also a region that is too small to survive smoothing: that one keeps its own edge.
    Regions are smoothed one by one, so that two that lie close together do not become one.

    Args:
        mask: (H, W) uint8, the class of each pixel.
        value: the class.
        around: a rectangle that holds all of its pixels.
    Returns:
        One outline per connected region (8-neighbourhood), within ``REACH_PER_SIDE`` of the region's edge.
    """
    window = mask[around.y : around.y + around.h, around.x : around.x + around.w]
    contours, hierarchy = cv2.findContours(
        (window == value).view(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_NONE,
        offset=(around.x, around.y),
    )
    frame_hw = (mask.shape[0], mask.shape[1])
    outlines = []
    for number, contour in enumerate(contours):
        if hierarchy[0, number, 3] >= 0:
            continue  # a hole, which goes with its region
        box = Rect(*cv2.boundingRect(contour))
        region = _Region(contours, hierarchy, number, box)
        outlines.append(Outline(_smoothed(region, frame_hw), box))
    return outlines


@dataclass(frozen=True, eq=False)
class _Region:
    contours: tuple[npt.NDArray[np.int32], ...] | list[npt.NDArray[np.int32]]
    hierarchy: npt.NDArray[np.int32]
    number: int  # of its outer contour
    box: Rect


def _smoothed(region: _Region, frame_hw: tuple[int, int]) -> tuple[npt.NDArray[np.float32], ...]:
    """The curves where the blurred region is half as bright as inside; its own edge when it never is."""
    sigma_px = min(frame_hw) * SMOOTHING_PER_SIDE
    shrink = max(1, int(sigma_px / _WORKING_SIGMA_PX))
    margin_px = int(np.ceil(3 * sigma_px)) + shrink
    box = region.box
    left, top = max(0, box.x - margin_px), max(0, box.y - margin_px)
    right, bottom = (
        min(frame_hw[1], box.x + box.w + margin_px),
        min(frame_hw[0], box.y + box.h + margin_px),
    )
    inside = np.zeros((bottom - top, right - left), np.uint8)
    cv2.drawContours(
        inside,
        region.contours,
        region.number,
        255,
        cv2.FILLED,
        cv2.LINE_8,
        region.hierarchy,
        1,
        (-left, -top),
    )
    small_wh = (-(-inside.shape[1] // shrink), -(-inside.shape[0] // shrink))
    across, down = inside.shape[1] / small_wh[0], inside.shape[0] / small_wh[1]
    small = cv2.resize(inside, small_wh, interpolation=cv2.INTER_AREA) if shrink > 1 else inside
    # Where the frame ends the region is taken to go on, so its outline runs along the frame's edge.
    blurred = cv2.GaussianBlur(small, (0, 0), sigma_px / across, sigmaY=sigma_px / down,
                               borderType=cv2.BORDER_REPLICATE)  # fmt: skip
    curves, _ = cv2.findContours((blurred > _LEVEL).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if sigma_px < 0.5 or max((len(curve) for curve in curves), default=0) < 4:
        # At twice the size the edge of a single pixel has an inside.
        double = cv2.resize(inside, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        curves, _ = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        return tuple(
            ((curve.reshape(-1, 2) + 0.5) / 2 - 0.5 + (left, top)).astype(np.float32) for curve in curves
        )
    levels = np.pad(blurred, 1, mode="edge").astype(np.float32)
    scale, corner = np.array([across, down], np.float32), np.array([left, top], np.float32)
    paths = [((_on_level(levels, curve.reshape(-1, 2)) + 0.5) * scale - 0.5 + corner) for curve in curves]
    # A point each 2 px or more draws the same curve in half of the time.
    return tuple(path[:: 2 if shrink == 1 and len(path) > 32 else 1].astype(np.float32) for path in paths)


def _on_level(levels: npt.NDArray[np.float32], points: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Move the outermost pixels of a region along the gradient to where the level is crossed.

    Args:
        levels: (h + 2, w + 2) float32, with a border of one pixel.
        points: (n, 2), x and y without that border.
    """
    x, y = points[:, 0] + 1, points[:, 1] + 1
    gradient = 0.5 * np.stack(
        [levels[y, x + 1] - levels[y, x - 1], levels[y + 1, x] - levels[y - 1, x]], axis=1
    )  # (n, 2)
    slope = np.maximum((gradient**2).sum(axis=1, keepdims=True), 1.0)
    step = -gradient * (levels[y, x][:, None] - np.float32(_LEVEL)) / slope
    moved = points + np.clip(step, -1, 1)
    if len(moved) < len(_ALONG):
        return np.asarray(moved, np.float32)
    ring = np.concatenate([moved[-2:], moved, moved[:2]])
    return np.asarray(
        sum(weight * ring[first : first + len(moved)] for first, weight in enumerate(_ALONG)), np.float32
    )
