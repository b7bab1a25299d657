"""Polyp-free windows of images with lesions: healthy bowel for training, which public sets hardly hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
_SEPARATE = (0.45, 0.4)
"""Sides of ``separate_windows``, in the order in which they are tried."""
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
    picture = _Picture.of(image_rgb, mask)
    if picture is None:
        return None
    for size in np.arange(_LARGEST, SMALLEST - 1e-9, -_STEP):
        if places := picture.places(size):
            return picture.enlarged(places[len(places) // 2])
    return None


def separate_windows(image_rgb: Image, mask: Image) -> list[Image]:
    """Return several windows as ``quiet_window`` makes them, small ones that do not overlap.

    They judge a network on many different views where a set has few images without a lesion.

    Args:
        image_rgb, mask: as of ``quiet_window``.
    Returns:
        (H, W, 3) uint8 each; their parts' sides are 0.45 and 0.4 of the field's. Empty as ``quiet_window``
        is None.
    """
    picture = _Picture.of(image_rgb, mask)
    windows: list[Image] = []
    if picture is None:
        return windows
    for size in _SEPARATE:
        while places := picture.places(size):
            windows.append(picture.enlarged(places[0]))
            picture.take(places[0])
    return windows


@dataclass(frozen=True, eq=False)
class _Picture:
    """An image with a lesion, and where its windows may lie.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        field: the field of view, px of the image.
        outside: (h, w) of the field, what lies outside the convex hull of the picture.
        taken: (h, w) uint8, what a window must not touch: the lesion, its surroundings, other windows.
        sums: integrals of flags over the field, and the share of a window that each may take up.
    """

    image_rgb: Image
    field: Rect
    outside: Flags
    taken: Image
    sums: Sequence[tuple[npt.NDArray[np.int32], float]]

    @classmethod
    def of(cls, image_rgb: Image, mask: Image) -> _Picture | None:
        """Prepare an image; None when it shows no lesion."""
        if not mask.any():
            return None
        cv2 = require("cv2", extra="train", purpose="cutting polyp-free windows")
        field = visible_field(image_rgb) or Rect(0, 0, mask.shape[1], mask.shape[0])
        inside = _inside(field)
        part = image_rgb[inside]
        reach = 2 * max(1, round(_MARGIN * min(field.h, field.w))) + 1
        near = cv2.dilate((mask[inside] > 0).astype(np.uint8), np.ones((reach, reach), np.uint8))
        level = part.max(axis=2)
        foreign = (part[..., 1:].max(axis=2) >= part[..., 0]) & (level > _LIT) & (level < _GLARE)
        outside = _border(cv2, part)
        limits = ((outside, _OUTSIDE_SHARE), (foreign, _FOREIGN_SHARE))
        sums = [(cv2.integral(flags.astype(np.uint8)), limit) for flags, limit in limits]
        return cls(image_rgb, field, outside, near, sums)

    def places(self, size: float) -> list[Rect]:
        """Return the allowed windows of a size, row by row, px of the field.

        Args:
            size: their sides, as a share of the field's.
        """
        cv2 = require("cv2", extra="train", purpose="cutting polyp-free windows")
        h, w = round(size * self.field.h), round(size * self.field.w)
        steps = max(2, round((1 - size) * _POSITIONS))
        tops = np.unique(np.linspace(0, self.field.h - h, steps).astype(int))
        lefts = np.unique(np.linspace(0, self.field.w - w, steps).astype(int))
        free = np.ones((len(tops), len(lefts)), bool)
        for total, limit in ((cv2.integral(self.taken), 0.0), *self.sums):
            rows, ends = total[tops], total[tops + h]
            count = ends[:, lefts + w] - ends[:, lefts] - rows[:, lefts + w] + rows[:, lefts]
            free &= count <= limit * h * w
        return [Rect(int(lefts[column]), int(tops[row]), w, h) for row, column in np.argwhere(free)]

    def enlarged(self, place: Rect) -> Image:
        """Fill the image's field of view with a window, px of the field."""
        cv2 = require("cv2", extra="train", purpose="cutting polyp-free windows")
        inside = _inside(self.field)
        part = self.image_rgb[inside]
        filled: Image = self.image_rgb.copy()
        enlarged = cv2.resize(
            part[_inside(place)], (self.field.w, self.field.h), interpolation=cv2.INTER_CUBIC
        )
        filled[inside] = np.where(self.outside[..., None], part, enlarged)
        return filled

    def take(self, place: Rect) -> None:
        """Keep later windows away from a window, px of the field."""
        self.taken[_inside(place)] = 1


def _inside(rect: Rect) -> tuple[slice, slice]:
    return np.s_[rect.y : rect.y + rect.h, rect.x : rect.x + rect.w]


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
