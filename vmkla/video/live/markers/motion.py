"""Follow a region from one frame to a later one."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.preprocess import Rect
from vmkla.video.live.markers.scene import Thumbnail

_POINTS_PER_SIDE = 7
_MARGIN_PX = 6  # of the thumbnail: for a small region, its surroundings are tracked as well
_WINDOW_PX, _LEVELS = 15, 2
_INLIER_PX = 2.0  # of the thumbnail
_LEAST_FOLLOWED = 0.2
"""Share of the points that must agree on the motion; 95 % of pairs of unrelated frames have less."""
_SCALES = (0.7, 1.4)
"""Range of the scale; a region that shrinks or grows by more while a marker lives is another region."""


def follow(before: Thumbnail, after: Thumbnail, box: Rect) -> npt.NDArray[np.float64] | None:
    """Estimate shift, rotation and scale of a region between two frames from a grid of tracked points.

    Args:
        before, after: thumbnails of two frames of the same size.
        box: rectangle around the region in the first frame, px of the frame.
    Returns:
        (2, 3) matrix that maps (x, y, 1) in the first frame's pixels to the second's; None when the region
        is not found again.
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
