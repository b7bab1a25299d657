"""Follow regions from one frame to a later one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.procedures.scene import Thumbnail
from vmkla.segment.preprocess import Rect

Motion = npt.NDArray[np.float64]

_POINTS_PER_SIDE = 7
_MARGIN_PX = 6  # of the thumbnail: for a small region, its surroundings are tracked as well
_WINDOW_PX, _LEVELS = 15, 2
_INLIER_PX = 2.0  # of the thumbnail
_LEAST_FOLLOWED = 0.2
"""Share of the points that must agree on the motion; 95 % of pairs of unrelated frames have less."""
_SCALES = (0.7, 1.4)
"""Range of the scale; a region that shrinks or grows by more while a marker lives is another region."""


def follow(before: Thumbnail, after: Thumbnail, box: Rect) -> Motion | None:
    """Estimate shift, rotation and scale of a region between two frames; see ``follow_all``."""
    return follow_all(before, after, (box,))[0]


def follow_all(before: Thumbnail, after: Thumbnail, boxes: Sequence[Rect]) -> list[Motion | None]:
    """Estimate shift, rotation and scale of regions between two frames from grids of tracked points.

    Args:
        before, after: thumbnails of two frames of the same size.
        boxes: rectangles around the regions in the first frame, px of the frame.
    Returns:
        For each region a (2, 3) matrix that maps (x, y, 1) in the first frame's pixels to the second's; None
        when the region is not found again.
    Source: Bouguet, Pyramidal Implementation of the Lucas Kanade Feature Tracker, 2000; Fischler & Bolles,
        Communications of the ACM 24(6), 1981 (RANSAC).
    """
    if not boxes:
        return []
    points = np.concatenate([_grid(before, box) for box in boxes])  # (boxes n, 1, 2)
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
    # From pixels of the thumbnail to those of the frame, whose centres lie half a pixel inside.
    shrink = np.array(before.shrink, np.float32)
    first, second = (np.asarray((side + 0.5) * shrink - 0.5, np.float32) for side in (points, there))
    count = _POINTS_PER_SIDE**2
    motions = []
    for start in range(0, len(points), count):
        own = slice(start, start + count)
        kept = tracked[own]
        motions.append(_motion(first[own][kept], second[own][kept], _INLIER_PX * max(before.shrink)))
    return motions


def _grid(scene: Thumbnail, box: Rect) -> npt.NDArray[np.float32]:
    """Return the points of a region to be tracked, (n, 1, 2), px of the thumbnail."""
    across, down = scene.shrink
    height_px, width_px = scene.grey.shape
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
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 1, 2).astype(np.float32)


def _motion(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32], inlier_px: float
) -> Motion | None:
    """Return the motion that enough of a region's points agree on, or None.

    Args:
        first, second: (k, 1, 2) places of the tracked points in both frames, px of the frame.
        inlier_px: largest distance of a point that agrees, px of the frame.
    """
    least = _LEAST_FOLLOWED * _POINTS_PER_SIDE**2
    if len(first) < least:
        return None
    motion, agreeing = cv2.estimateAffinePartial2D(
        first, second, ransacReprojThreshold=inlier_px, maxIters=200
    )
    if motion is None or np.count_nonzero(agreeing) < least:
        return None
    if not _SCALES[0] <= float(np.hypot(motion[0, 0], motion[1, 0])) <= _SCALES[1]:
        return None
    return np.asarray(motion, np.float64)
