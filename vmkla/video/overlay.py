"""Findings drawn into a frame. Pixels outside a marker are never touched."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.preprocess import Rect
from vmkla.video.findings import Findings

OverlayStyle = Literal["contour", "fill", "box", "none"]
OVERLAY_STYLES: tuple[str, ...] = get_args(OverlayStyle)

DEFAULT_ALPHA = {"contour": 1.0, "fill": 0.4, "box": 1.0, "none": 0.0}
"""Opacity of each style when the user gives none: thin lines are opaque, areas show what is under them."""

PALETTE_RGB = ((64, 255, 64), (64, 224, 255), (255, 224, 32), (255, 96, 255), (255, 144, 32), (160, 160, 255))
"""Colours that tissue does not have; class 1 takes the first."""

_LINE_PX_PER_SIDE = 1 / 240
"""Width of a line over the shorter side of the frame."""


def draw(
    frame_rgb: npt.NDArray[np.uint8],
    findings: Findings,
    style: OverlayStyle = "contour",
    alpha: float | None = None,
) -> npt.NDArray[np.uint8]:
    """Mark the findings.

    Args:
        frame_rgb: (H, W, 3) uint8; not changed.
        findings: those of this frame.
        style: a thin line along each region's edge, the region filled, a box around it, or nothing.
        alpha: opacity of the marker, 0 to 1; None takes the style's default.
    Returns:
        (H, W, 3) uint8: the frame itself when there is nothing to draw, otherwise a copy.
    Raises:
        UsageError: the style is not known.
    """
    if style not in OVERLAY_STYLES:
        raise UsageError(
            f"overlay {style!r} is not known", hint=f"Choose one of: {', '.join(OVERLAY_STYLES)}"
        )
    opacity = DEFAULT_ALPHA[style] if alpha is None else alpha
    if style == "none" or not findings.any or opacity <= 0:
        return frame_rgb
    line_px = max(1, round(min(frame_rgb.shape[:2]) * _LINE_PX_PER_SIDE))
    drawn = np.array(frame_rgb, dtype=np.uint8)
    for value in sorted(set(findings.box_classes)):
        boxes = [box for box, of in zip(findings.boxes, findings.box_classes, strict=True) if of == value]
        marker, left_top = _marker(findings.mask, value, boxes, style, line_px)  # (h, w) 0 or 255
        top, left = left_top[1], left_top[0]
        window = drawn[top : top + marker.shape[0], left : left + marker.shape[1]]
        colour = np.full_like(window, PALETTE_RGB[(value - 1) % len(PALETTE_RGB)])
        cv2.copyTo(cv2.addWeighted(colour, opacity, window, 1 - opacity, 0), marker, window)
    return drawn


def _marker(
    mask: npt.NDArray[np.uint8], value: int, boxes: list[Rect], style: OverlayStyle, line_px: int
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """The marker's pixels, cut to their own neighbourhood, and where its left top corner lies."""
    height_px, width_px = mask.shape
    left = max(0, min(box.x for box in boxes) - line_px)
    top = max(0, min(box.y for box in boxes) - line_px)
    right = min(width_px, max(box.x + box.w for box in boxes) + line_px)
    bottom = min(height_px, max(box.y + box.h for box in boxes) + line_px)
    region = (mask[top:bottom, left:right] == value).astype(np.uint8)
    if style == "fill":
        return np.asarray(region * 255, dtype=np.uint8), (left, top)
    marker = np.zeros_like(region)
    if style == "contour":
        contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(marker, contours, -1, 255, line_px, cv2.LINE_8)
    else:
        for box in boxes:
            corner = (box.x - left, box.y - top)
            cv2.rectangle(
                marker, corner, (corner[0] + box.w - 1, corner[1] + box.h - 1), 255, line_px, cv2.LINE_8
            )
    return marker, (left, top)
