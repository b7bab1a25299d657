"""Smooth outlines of the regions of a mask, at the frame's own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.preprocess import Rect

SMOOTHING_PER_SIDE = 1 / 140
"""Standard deviation of the Gaussian that smooths a region, over the frame's shorter side. It removes the
teeth that a network of 192 pixels a side leaves, one to three of its pixels long."""

REACH_PER_SIDE = 1.18 * SMOOTHING_PER_SIDE
"""Largest distance from a region's edge at which its outline can differ, as a share of the shorter side.

A disc of radius 1.1774 sigma holds half of a Gaussian's weight: a pixel whose surroundings within that radius
belong to the region stays inside, and one without any of it so near stays outside. Rounding adds up to
``1 + sigma / 2`` px."""

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


def smooth_outlines(
    mask: npt.NDArray[np.uint8], value: int, around: Rect, most: int
) -> tuple[list[Outline], list[Outline]]:
    """Find the smoothed outline of every region of a class.

    Every region has one, also a region that is too small to survive smoothing: that one keeps its own edge.
    Regions are smoothed one by one, so that two that lie close together do not become one.

    Args:
        mask: (H, W) uint8, the class of each pixel.
        value: the class.
        around: a rectangle that holds all of its pixels.
        most: number of regions to smooth, those with the largest boxes.
    Returns:
        One outline per connected region (8-neighbourhood): those within ``REACH_PER_SIDE`` of the region's
        edge, largest box first, and the unsmoothed edges of all others.
    """
    window = mask[around.y : around.y + around.h, around.x : around.x + around.w]
    contours, hierarchy = cv2.findContours(
        (window == value).view(np.uint8),
        cv2.RETR_CCOMP,
        cv2.CHAIN_APPROX_NONE,
        offset=(around.x, around.y),
    )
    frame_hw = (mask.shape[0], mask.shape[1])
    regions = [
        _Region(contours, hierarchy, number, Rect(*cv2.boundingRect(contours[number])))
        for number in np.flatnonzero(hierarchy[0, :, 3] < 0).tolist()  # the others are holes of these
    ]
    regions.sort(key=lambda region: -region.box.w * region.box.h)
    return (
        [Outline(_smoothed(region, frame_hw), region.box) for region in regions[:most]],
        [Outline(region.edges(), region.box) for region in regions[most:]],
    )


@dataclass(frozen=True, eq=False)
class _Region:
    contours: tuple[npt.NDArray[np.int32], ...] | list[npt.NDArray[np.int32]]
    hierarchy: npt.NDArray[np.int32]
    number: int  # of its outer contour
    box: Rect

    def edges(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Return its own edges, through the centres of its outermost pixels."""
        numbers, hole = [self.number], int(self.hierarchy[0, self.number, 2])
        while hole >= 0:
            numbers.append(hole)
            hole = int(self.hierarchy[0, hole, 0])
        return tuple(self.contours[number].reshape(-1, 2).astype(np.float32) for number in numbers)


def _smoothed(region: _Region, frame_hw: tuple[int, int]) -> tuple[npt.NDArray[np.float32], ...]:
    """Return the curves where the blurred region is half as bright; its own edge where it never is."""
    sigma_px = min(frame_hw) * SMOOTHING_PER_SIDE
    shrink = max(1, int(sigma_px / _WORKING_SIGMA_PX))
    # Of a strip that is narrower than sigma nothing would be left.
    blurs = sigma_px >= 0.5 and min(region.box.w, region.box.h) >= sigma_px
    inside, corner = _cut_out(region, int(np.ceil(3 * sigma_px)) + shrink if blurs else 1, frame_hw)
    if blurs:
        small_wh = (-(-inside.shape[1] // shrink), -(-inside.shape[0] // shrink))
        scale = np.array([inside.shape[1] / small_wh[0], inside.shape[0] / small_wh[1]], np.float32)
        small = cv2.resize(inside, small_wh, interpolation=cv2.INTER_AREA) if shrink > 1 else inside
        across_px, down_px = (sigma_px / scale).tolist()
        # Where the frame ends the region is assumed to continue, so its outline runs along the frame's edge.
        blurred = cv2.GaussianBlur(small, (0, 0), across_px, sigmaY=down_px, borderType=cv2.BORDER_REPLICATE)
        above = (blurred > _LEVEL).view(np.uint8)
        curves, _ = cv2.findContours(above, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        if max((len(curve) for curve in curves), default=0) >= 4:
            levels = np.pad(blurred, 1, mode="edge").astype(np.float32)
            edges = [_on_level(levels, np.asarray(curve, np.int32).reshape(-1, 2)) for curve in curves]
            paths = [(edge + 0.5) * scale - 0.5 + corner for edge in edges]
            # A point each 2 px or more draws the same curve in half of the time.
            step = [2 if shrink == 1 and len(path) > 32 else 1 for path in paths]
            return tuple(path[::every].astype(np.float32) for path, every in zip(paths, step, strict=True))
    # At twice the size the edge of a single pixel has an inside.
    double = cv2.resize(inside, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    curves, _ = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return tuple(((curve.reshape(-1, 2) + 0.5) / 2 - 0.5 + corner).astype(np.float32) for curve in curves)


def _cut_out(
    region: _Region, margin_px: int, frame_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Return a region without its neighbours, 255 inside, and where the corner of this window lies."""
    box = region.box
    left, top = max(0, box.x - margin_px), max(0, box.y - margin_px)
    right = min(frame_hw[1], box.x + box.w + margin_px)
    bottom = min(frame_hw[0], box.y + box.h + margin_px)
    inside = np.zeros((bottom - top, right - left), np.uint8)
    cv2.drawContours(
        inside,
        region.contours,
        region.number,
        255,
        cv2.FILLED,
        cv2.LINE_8,
        region.hierarchy,
        maxLevel=1,
        offset=(-left, -top),
    )
    return inside, np.array([left, top], np.float32)


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
