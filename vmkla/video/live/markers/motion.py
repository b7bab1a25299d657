"""Where a region of one frame is in a later one."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.preprocess import Rect
from vmkla.video.live.markers.scene import Thumbnail

_POINTS_PER_SIDE = 7
_MARGIN_PX = 6  # of the thumbnail: small regions take what surrounds them along
_WINDOW_PX, _LEVELS = 15, 2
_INLIER_PX = 2.0  # of the thumbnail
_LEAST_FOLLOWED = 0.2
"""Share of the points that must agree on the motion; between unrelated frames 95 % have less."""
_SCALES = (0.7, 1.4)
"""A region that grows or shrinks by more in the life of a marker is not the same region."""


def follow(before: Thumbnail, after: Thumbnail, box: Rect) -> npt.NDArray[np.float64] | None:
    """Shift, turn and scale of a region between two frames, from a grid of points that are followed.

    Args:
        before, after: of frames of the same size.
        box: around the region in the first, px of the frame.
    Returns:
        (2, 3), takes (x, y, 1) in the first frame's pixels to the second's; None when the region cannot be
        found again.
    Source: Bouguet, Pyramidal Implementation of the Lucas Kanade Feature Tracker, 2000; Fischler & Bolles,
        Communications of the ACM 24(6), 1981 (RANSAC).
    """
    across, down = before.shrink
    height_px, width_px = before.grey.shape
    x = np.linspace(
        max(0, box.x / across - _MARGIN_PX),
        min(width_px - 1, (box.x + box.w) / across + _MARGIN_PX),
        _POINTS_PER_SIDE,
    )
    y = np.linspace(
        max(0, box.y / down - _MARGIN_PX),
        min(height_px - 1, (box.y + box.h) / down + _MARGIN_PX),
        _POINTS_PER_SIDE,
    )
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2).astype(np.float32)  # (n, 1, 2)
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before.grey,
        after.grey,
        points,
        np.empty_like(points),
        winSize=(_WINDOW_PX, _WINDOW_PX),
        maxLevel=_LEVELS,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03),
    )
    tracked = found[:, 0] > 0
    if np.count_nonzero(tracked) < _LEAST_FOLLOWED * len(points):
        return None
    # From pixels of the thumbnail to those of the frame, whose centres lie half a pixel inside.
    shrink = np.array([across, down], np.float32)
    first, second = ((side[tracked] + 0.5) * shrink - 0.5 for side in (points, there))
    motion, agreeing = cv2.estimateAffinePartial2D(
        first, second, ransacReprojThreshold=_INLIER_PX * max(across, down), maxIters=200
    )
    if motion is None or np.count_nonzero(agreeing) < _LEAST_FOLLOWED * len(points):
        return None
    if not _SCALES[0] <= float(np.hypot(motion[0, 0], motion[1, 0])) <= _SCALES[1]:
        return None
    return np.asarray(motion, np.float64)
