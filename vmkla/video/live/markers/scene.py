"""Is this still the same scene? A small copy of a frame, and how much two of them differ."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

CUT_LIMIT = 0.18
"""Neighbouring frames that differ by more show different scenes; see ``benchmarks/live/results.md``."""
CHANGE_LIMIT = 0.4
"""Between frames further apart, up to the time that a marker lives, a moving camera changes as much."""

_GREY_SIDE_PX = 120
"""The copy's shorter side."""
_COARSE_HW = (48, 64)
_DARK = 30.0
"""Where both frames are darker there is the endoscope's border, which says nothing of the scene."""
_SEEN_SHARE = 1 / 64
"""Frames of which less than this share is lit show nothing: no scene changes in the dark."""


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A small copy of a frame.

    Attributes:
        grey: (h, w) uint8, the shorter side about 120 px, in the frame's proportions.
        coarse: (48, 64) float32, 0 to 255.
        shrink: how many of the frame's pixels, across and down, a pixel of ``grey`` stands for.
    """

    grey: npt.NDArray[np.uint8]
    coarse: npt.NDArray[np.float32]
    shrink: tuple[float, float]


def thumbnail(rgb: npt.NDArray[np.uint8]) -> Thumbnail:
    """A small copy, from a few samples of the frame: its cost hardly grows with the frame.

    Args:
        rgb: (H, W, 3) uint8.
    """
    height_px, width_px = rgb.shape[:2]
    scale = min(1.0, _GREY_SIDE_PX / min(height_px, width_px))
    size_wh = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    # Linear interpolation reads four pixels for each one that it gives; an average over all takes 20 times
    # as long at 1080p and neither finds cuts nor follows motion any better.
    small = cv2.resize(rgb, size_wh, interpolation=cv2.INTER_LINEAR)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
    coarse = cv2.resize(grey, _COARSE_HW[::-1], interpolation=cv2.INTER_AREA)
    return Thumbnail(grey, np.asarray(coarse, np.float32), (width_px / size_wh[0], height_px / size_wh[1]))


def change(before: Thumbnail, after: Thumbnail) -> float:
    """How much two frames differ: the mean difference where there is light, over the mean brightness there.

    Returns:
        0 for equal frames and for two dark ones, 2 for a frame and black; unrelated frames of one
        brightness are at about 0.3 to 0.6.
    """
    lit = np.maximum(before.coarse, after.coarse) > _DARK
    if np.count_nonzero(lit) < _SEEN_SHARE * lit.size:
        return 0.0
    first, second = before.coarse[lit], after.coarse[lit]
    return float(2 * np.abs(first - second).sum() / (first.sum() + second.sum()))
