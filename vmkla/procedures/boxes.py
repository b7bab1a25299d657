"""Geometry of boxes with fractions of pixels: x and y of the upper left corner, width, height."""

from __future__ import annotations

import math

from vmkla.procedures.motion import Motion
from vmkla.segment.preprocess import Rect

Box = tuple[float, float, float, float]


def centre(box: Box) -> tuple[float, float]:
    """Return x and y of the centre, px."""
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def diagonal(box: Box) -> float:
    """Return the length of the diagonal, px."""
    return math.hypot(box[2], box[3])


def shared_area(first: Box, second: Box) -> float:
    """Return the area that two boxes share, px."""
    across = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    down = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(0.0, across) * max(0.0, down)


def iou(first: Box, second: Box) -> float:
    """Return the shared area over the area of both, 0 to 1."""
    shared = shared_area(first, second)
    return shared / (first[2] * first[3] + second[2] * second[3] - shared) if shared > 0 else 0.0


def coverage(inner: Box, outer: Box) -> float:
    """Return the share of the first box that lies in the second, 0 to 1."""
    return shared_area(inner, outer) / (inner[2] * inner[3])


def enclosing(first: Box, second: Box) -> Box:
    """Return the smallest box that holds both."""
    left, top = min(first[0], second[0]), min(first[1], second[1])
    right = max(first[0] + first[2], second[0] + second[2])
    bottom = max(first[1] + first[3], second[1] + second[3])
    return left, top, right - left, bottom - top


def moved(box: Box, motion: Motion) -> Box:
    """Return the box after a motion: its centre is moved and its sides are scaled; it stays upright.

    Args:
        box: in the first frame.
        motion: (2, 3) of ``follow_all``, px.
    """
    x, y = centre(box)
    (a, b, shift_x), (c, d, shift_y) = motion.tolist()
    scale = math.hypot(a, c)
    w, h = box[2] * scale, box[3] * scale
    return a * x + b * y + shift_x - w / 2, c * x + d * y + shift_y - h / 2, w, h


def shifted(box: Box, x: float, y: float) -> Box:
    """Return the box shifted by x and y, px."""
    return box[0] + x, box[1] + y, box[2], box[3]


def centred_within(box: Box, outer: Box) -> Box:
    """Return the box shifted by the least that brings its centre into another one."""
    x, y = centre(box)
    return shifted(
        box,
        min(max(x, outer[0]), outer[0] + outer[2]) - x,
        min(max(y, outer[1]), outer[1] + outer[3]) - y,
    )


def widened(box: Box, share: float) -> Box:
    """Return the box with a margin on each side, a share of its diagonal."""
    margin = share * diagonal(box)
    return box[0] - margin, box[1] - margin, box[2] + 2 * margin, box[3] + 2 * margin


def blended(before: Box, now: Box, share: float) -> Box:
    """Return a box between two: 0 is the first, 1 the second."""
    x, y, w, h = (a + share * (b - a) for a, b in zip(before, now, strict=True))
    return x, y, w, h


def to_rect(box: Box) -> Rect:
    """Return the box in whole pixels, at least one pixel large."""
    left, top = math.floor(box[0]), math.floor(box[1])
    return Rect(
        left, top, max(1, math.ceil(box[0] + box[2]) - left), max(1, math.ceil(box[1] + box[3]) - top)
    )
