"""Compare scenes: a thumbnail of a frame, and how much two of them differ."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

CUT_LIMIT = 0.18
"""Change between neighbouring frames above which they show different scenes; see the live benchmarks."""
CHANGE_LIMIT = 0.4
"""The same for frames further apart, up to a marker's lifetime: a moving camera changes more meanwhile."""

_GREY_SIDE_PX = 120
"""Shorter side of the thumbnail, px."""
_COARSE_HW = (48, 64)
_DARK = 30.0
"""Pixels darker than this in both frames are the endoscope's border, which is left out."""
_SEEN_SHARE = 1 / 64
"""Lit share of two frames below which they are not compared: no scene changes in the dark."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A thumbnail of a frame.

    Attributes:
        grey: (h, w) uint8, the shorter side about 120 px, in the frame's proportions.
        coarse: (48, 64) float32, 0 to 255.
        shrink: number of the frame's pixels per pixel of ``grey``, across and down.
    """

    grey: npt.NDArray[np.uint8]
    coarse: npt.NDArray[np.float32]
    shrink: tuple[float, float]


def thumbnail(rgb: npt.NDArray[np.uint8]) -> Thumbnail:
    """Make a thumbnail from a few samples of a frame, at a cost that hardly grows with its size.

    Args:
        rgb: (H, W, 3) uint8.
    """
    height_px, width_px = rgb.shape[:2]
    scale = min(1.0, _GREY_SIDE_PX / min(height_px, width_px))
    size_wh = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    # Linear interpolation reads four pixels for each one of the result; an average over all takes 20 times
    # as long at 1080p and finds cuts and follows motion no better.
    small = cv2.resize(rgb, size_wh, interpolation=cv2.INTER_LINEAR)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
    return thumbnail_of_grey(grey, (width_px / size_wh[0], height_px / size_wh[1]))


def thumbnail_of_grey(grey: npt.NDArray[np.uint8], shrink: tuple[float, float]) -> Thumbnail:
    """Make a thumbnail from its grey image; see ``Thumbnail``."""
    coarse = cv2.resize(grey, _COARSE_HW[::-1], interpolation=cv2.INTER_AREA)
    return Thumbnail(grey, np.asarray(coarse, np.float32), shrink)


def change(before: Thumbnail, after: Thumbnail) -> float:
    """Measure the change between two frames: mean difference over mean brightness, where there is light.

    Returns:
        0 for equal frames and for two dark ones, 2 for a frame and black; unrelated frames of equal
        brightness about 0.3 to 0.6.
    """
    lit = np.maximum(before.coarse, after.coarse) > _DARK
    if np.count_nonzero(lit) < _SEEN_SHARE * lit.size:
        return 0.0
    first, second = before.coarse[lit], after.coarse[lit]
    return float(2 * np.abs(first - second).sum() / (first.sum() + second.sum()))
