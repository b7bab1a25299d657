"""Turn regions into polygons for the formats that have no masks."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.int32]


def polygon(pixels: npt.NDArray[np.uint8]) -> Points:
    """Return one closed polygon through the outermost pixels of a region; filling it gives the region.

    A hole is joined to the edge by a cut of no width, there and back along one row of the region.

    Args:
        pixels: (h, w), 1 inside one connected region (8-neighbourhood).
    Returns:
        (n, 2) int32, x and y of pixels, at least 3 points.
    """
    found, hierarchy = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    curves = [np.asarray(curve, np.int32).reshape(-1, 2) for curve in found]
    outer = [number for number in range(len(curves)) if hierarchy[0, number, 3] < 0]
    path = curves[outer[0]]
    holes = [curve for number, curve in enumerate(curves) if number not in outer]
    # From the left: what ends a hole's cut, the outer edge or another hole, is then in the path already.
    for hole in sorted(holes, key=lambda curve: int(curve[:, 0].min())):
        path = _joined(path, hole, pixels)
    path = _without_straight(path)
    return np.concatenate([path, np.repeat(path[-1:], max(0, 3 - len(path)), axis=0)])


def _joined(path: Points, hole: Points, pixels: npt.NDArray[np.uint8]) -> Points:
    """Return the path with a hole's edge put in where a row leads from the hole to it."""
    start = int(hole[:, 0].argmin())
    x, y = hole[start].tolist()
    while x > 0 and pixels[y, x - 1]:
        x -= 1
    (at, *_) = np.flatnonzero((path == (x, y)).all(axis=1)).tolist()
    around = np.roll(hole, -start, axis=0)
    return np.concatenate([path[: at + 1], around, around[:1], path[at:]])


def _without_straight(path: Points) -> Points:
    """Leave out repeated points, and those between two others in the same direction."""
    path = path[(path != np.roll(path, 1, axis=0)).any(axis=1) | (len(path) == 1)]
    if len(path) < 3:
        return path
    before, after = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0
    kept = path[turns | back]
    return kept if len(kept) else path[:1]
