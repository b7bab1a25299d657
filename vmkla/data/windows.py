"""Polyp-free windows of images with lesions: healthy bowel for training, which public sets hardly hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vmkla.data.sources import Sample
from vmkla.imports import require
from vmkla.segment.preprocess import Rect, visible_field

WINDOW = " (polyp-free window)"
"""Ends the name of a window, which begins with that of its image."""
SMALLEST = 0.45
"""Sides of the smallest window, as a share of the field of view's: what remains is enlarged 2.2 times."""
_LARGEST, _STEP = 0.95, 0.05
_POSITIONS = 24
"""Windows are tried at every 24th of the field's sides."""
_MARGIN = 0.05
"""Distance from the lesion, as a share of the field's shorter side: masks are drawn by hand."""
_DARK = 40
"""A pixel of the border is never brighter than this in its brightest channel (0 to 255)."""
_LIT, _GLARE = 60, 235
"""Between these levels (0 to 255) mucosa is redder than green and blue; dye and display are not."""
_OUTSIDE_SHARE, _FOREIGN_SHARE = 0.02, 0.02
"""Shares of a window that may be border, and dye or display."""

Image = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]


def with_windows(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Add the polyp-free window of each image that has one, right behind it; see ``quiet_window``."""
    for sample in samples:
        yield sample
        window = quiet_window(sample.image_rgb, sample.mask)
        if window is not None:
            yield replace(
                sample, name=sample.name + WINDOW, image_rgb=window, mask=np.zeros_like(sample.mask)
            )


def quiet_window(image_rgb: Image, mask: Image) -> Image | None:
    """Fill an image's field of view with its largest part that shows no lesion.

    The part has the shape of the field and keeps away from the lesion, from dye and from display panels.
    What surrounds the field (black border, cut corners, text) stays, so that neither the border nor the
    size of the picture tells a quiet image from another one.

    Args:
        image_rgb: (H, W, 3) uint8.
        mask: (H, W) uint8, class indices; 0 is the background.
    Returns:
        (H, W, 3) uint8; None when every window of ``SMALLEST`` or more touches a lesion, or when the image
        has none.
    """
    if not mask.any():
        return None
    cv2 = require("cv2", extra="train", purpose="cutting polyp-free windows")
    field = visible_field(image_rgb) or Rect(0, 0, mask.shape[1], mask.shape[0])
    inside = np.s_[field.y : field.y + field.h, field.x : field.x + field.w]
    part, lesion = image_rgb[inside], mask[inside]
    outside = _border(cv2, part)
    found = _largest_free(cv2, part, lesion, outside)
    if found is None:
        return None
    window = part[found.y : found.y + found.h, found.x : found.x + found.w]
    filled: Image = image_rgb.copy()
    enlarged = cv2.resize(window, (field.w, field.h), interpolation=cv2.INTER_CUBIC)
    filled[inside] = np.where(outside[..., None], part, enlarged)
    return filled


def _border(cv2: Any, part: Image) -> Flags:
    """What lies outside the convex hull of the picture: dark pixels that the corners are connected to."""
    level = cv2.medianBlur(part.max(axis=2), 5)
    dark = np.pad((level <= _DARK).astype(np.uint8), 1)
    height, width = dark.shape
    for corner in ((1, 1), (width - 2, 1), (1, height - 2), (width - 2, height - 2)):
        if dark[corner[1], corner[0]] == 1:
            cv2.floodFill(dark, None, corner, 2)
    lit = cv2.morphologyEx(
        (dark[1:-1, 1:-1] != 2).astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8)
    )
    points = cv2.findNonZero(lit)
    if points is not None:  # the hull: a dark lumen at the edge of the picture is not a border
        cv2.fillConvexPoly(lit, cv2.convexHull(points), 1)
    border: Flags = lit == 0
    return border


def _largest_free(cv2: Any, part: Image, lesion: Image, outside: Flags) -> Rect | None:
    """The largest window that is allowed; of several the one in the middle of their list."""
    height, width = lesion.shape
    reach = 2 * max(1, round(_MARGIN * min(height, width))) + 1
    near = cv2.dilate((lesion > 0).astype(np.uint8), np.ones((reach, reach), np.uint8))
    level = part.max(axis=2)
    foreign = (part[..., 1:].max(axis=2) >= part[..., 0]) & (level > _LIT) & (level < _GLARE)
    limits = ((near, 0.0), (outside, _OUTSIDE_SHARE), (foreign, _FOREIGN_SHARE))
    sums = [(cv2.integral(flags.astype(np.uint8)), limit) for flags, limit in limits]
    for size in np.arange(_LARGEST, SMALLEST - 1e-9, -_STEP):
        h, w = round(size * height), round(size * width)
        tops = np.unique(np.linspace(0, height - h, max(2, round((1 - size) * _POSITIONS))).astype(int))
        lefts = np.unique(np.linspace(0, width - w, max(2, round((1 - size) * _POSITIONS))).astype(int))
        free = np.ones((len(tops), len(lefts)), bool)
        for total, limit in sums:
            rows, ends = total[tops], total[tops + h]
            count = ends[:, lefts + w] - ends[:, lefts] - rows[:, lefts + w] + rows[:, lefts]
            free &= count <= limit * h * w
        if free.any():
            places = np.argwhere(free)
            row, column = places[len(places) // 2]
            return Rect(int(lefts[column]), int(tops[row]), w, h)
    return None
