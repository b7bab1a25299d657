"""Findings drawn into a frame. Pixels outside a marker are never touched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.segment.findings import Findings
from vmkla.segment.preprocess import Rect, union

OverlayStyle = Literal["contour", "fill", "box", "none"]
OVERLAY_STYLES: tuple[str, ...] = get_args(OverlayStyle)

DEFAULT_ALPHA = {"contour": 1.0, "fill": 0.4, "box": 1.0, "none": 0.0}
"""Opacity of each style when the user gives none: thin lines are opaque, areas show what is under them."""

PALETTE_RGB = ((64, 255, 64), (64, 224, 255), (255, 224, 32), (255, 96, 255), (255, 144, 32), (160, 160, 255))
"""Colours that tissue does not have; class 1 takes the first."""

_LINE_PX_PER_SIDE = 1 / 240
"""Width of a line over the shorter side of the frame."""


@dataclass(frozen=True, eq=False)
class Layer:
    """The marker of one class.

    Attributes:
        contours: (n, 1, 2) int32 each, x and y in the frame, px: the edges of its regions and their holes.
        hierarchy: (1, contours, 4) int32, as OpenCV gives it.
        colour_rgb: of the marker.
        pixels: (h, w) uint8, 255 where the marker is and 0 elsewhere, cut to its own neighbourhood.
        left, top: where the corner of ``pixels`` lies in the frame, px.
    """

    contours: tuple[npt.NDArray[np.int32], ...]
    hierarchy: npt.NDArray[np.int32]
    colour_rgb: tuple[int, int, int]
    pixels: npt.NDArray[np.uint8]
    left: int
    top: int


@dataclass(frozen=True, eq=False)
class Drawing:
    """What is to be painted into a frame; empty when there is nothing.

    Attributes:
        style, opacity: how.
        frame_hw: height and width of the frame that it was made for, px.
        layers: in the order of painting.
    """

    style: OverlayStyle
    opacity: float
    frame_hw: tuple[int, int]
    layers: tuple[Layer, ...] = ()

    def covered(self) -> npt.NDArray[np.bool_]:
        """(H, W): the pixels that ``paint`` may change."""
        covered = np.zeros(self.frame_hw, np.bool_)
        for layer in self.layers:
            height_px, width_px = layer.pixels.shape
            covered[layer.top : layer.top + height_px, layer.left : layer.left + width_px] |= layer.pixels > 0
        return covered

    def moved(self, motion: npt.NDArray[np.float64]) -> Drawing:
        """The same regions somewhere else; what leaves the frame is cut off.

        Args:
            motion: (2, 3), takes (x, y, 1) in pixels of the frame to where the point is now.
        """
        layers = []
        for layer in self.layers:
            turned = [np.rint(contour @ motion[:, :2].T + motion[:, 2]) for contour in layer.contours]
            contours = tuple(points.astype(np.int32) for points in turned)
            layers.append(_layer(contours, layer.hierarchy, layer.colour_rgb, self.style, self.frame_hw))
        return replace(self, layers=tuple(layer for layer in layers if layer.pixels.size))


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
    return paint(frame_rgb, outline(findings, style, alpha))


def outline(findings: Findings, style: OverlayStyle = "contour", alpha: float | None = None) -> Drawing:
    """The work of ``draw`` that needs no picture: what is painted, and where.

    Args:
        findings: of one frame.
        style, alpha: as for ``draw``.
    Raises:
        UsageError: the style is not known.
    """
    if style not in OVERLAY_STYLES:
        raise UsageError(
            f"overlay {style!r} is not known", hint=f"Choose one of: {', '.join(OVERLAY_STYLES)}"
        )
    opacity = DEFAULT_ALPHA[style] if alpha is None else alpha
    frame_hw = (findings.mask.shape[0], findings.mask.shape[1])
    if style == "none" or not findings.any or opacity <= 0:
        return Drawing(style, opacity, frame_hw)
    layers = []
    for value in sorted({region.class_index for region in findings.regions}):
        around = union(region.box for region in findings.regions if region.class_index == value)
        assert around is not None  # a class that is listed has a box
        window = findings.mask[around.y : around.y + around.h, around.x : around.x + around.w]
        region = (window == value).view(np.uint8)
        contours, hierarchy = cv2.findContours(
            region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(around.x, around.y)
        )
        colour_rgb = PALETTE_RGB[(value - 1) % len(PALETTE_RGB)]
        edges = tuple(np.asarray(contour, np.int32) for contour in contours)
        layers.append(_layer(edges, np.asarray(hierarchy, np.int32), colour_rgb, style, frame_hw))
    return Drawing(style, opacity, frame_hw, tuple(layers))


def paint(frame_rgb: npt.NDArray[np.uint8], drawing: Drawing) -> npt.NDArray[np.uint8]:
    """Paint a drawing into a frame of its size.

    Args:
        frame_rgb: (H, W, 3) uint8; not changed.
        drawing: made by ``outline``.
    Returns:
        (H, W, 3) uint8: the frame itself when the drawing is empty, otherwise a copy.
    """
    if not drawing.layers:
        return frame_rgb
    drawn = np.array(frame_rgb, dtype=np.uint8)
    for layer in drawing.layers:
        height_px, width_px = layer.pixels.shape
        window = drawn[layer.top : layer.top + height_px, layer.left : layer.left + width_px]
        colour = np.full_like(window, layer.colour_rgb)
        if drawing.opacity < 1:
            blend = cv2.addWeighted(colour, drawing.opacity, window, 1 - drawing.opacity, 0)
            colour = np.asarray(blend, np.uint8)
        cv2.copyTo(colour, layer.pixels, window)
    return drawn


def _layer(
    contours: tuple[npt.NDArray[np.int32], ...],
    hierarchy: npt.NDArray[np.int32],
    colour_rgb: tuple[int, int, int],
    style: OverlayStyle,
    frame_hw: tuple[int, int],
) -> Layer:
    """Draw the contours of one class; no pixels when they lie outside the frame."""
    line_px = max(1, round(min(frame_hw) * _LINE_PX_PER_SIDE))
    outer = [points for points, links in zip(contours, hierarchy[0], strict=True) if links[3] < 0]
    boxes = [Rect(*cv2.boundingRect(points)) for points in outer]
    left = max(0, min(box.x for box in boxes) - line_px)
    top = max(0, min(box.y for box in boxes) - line_px)
    right = min(frame_hw[1], max(box.x + box.w for box in boxes) + line_px)
    bottom = min(frame_hw[0], max(box.y + box.h for box in boxes) + line_px)
    pixels = np.zeros((max(0, bottom - top), max(0, right - left)), np.uint8)
    if pixels.size and style == "box":
        for box in boxes:
            corner = (box.x - left, box.y - top)
            cv2.rectangle(
                pixels, corner, (corner[0] + box.w - 1, corner[1] + box.h - 1), 255, line_px, cv2.LINE_8
            )
    elif pixels.size:
        thickness_px = cv2.FILLED if style == "fill" else line_px
        cv2.drawContours(pixels, contours, -1, 255, thickness_px, cv2.LINE_8, hierarchy, offset=(-left, -top))
    return Layer(contours, hierarchy, colour_rgb, pixels, left, top)
