"""Draw findings into a frame. Pixels outside a marker are never touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.segment.contours import Outline, smooth_outlines
from vmkla.segment.findings import Findings
from vmkla.segment.layers import Layer, Paths, Shape, draw_layers, split_paths
from vmkla.segment.preprocess import Rect, union

OverlayStyle = Literal["contour", "fill", "box", "none"]
OVERLAY_STYLES: tuple[str, ...] = get_args(OverlayStyle)
Label = Literal["none", "probability", "lesion"]
LABELS: tuple[str, ...] = get_args(Label)

DEFAULT_ALPHA = {"contour": 1.0, "fill": 0.4, "box": 1.0, "none": 0.0}
"""Opacity of each style when the user gives none: lines are opaque, areas show what is under them."""

PALETTE_RGB = ((64, 255, 64), (64, 224, 255), (255, 224, 32), (255, 96, 255), (255, 144, 32), (160, 160, 255))
"""Colours that tissue does not have; class 1 takes the first."""

_MOST_SHAPES = 32
"""Largest number of regions of a class that are smoothed and labelled; the others become one plain shape.
A network that sees noise everywhere must not delay the display."""
_PIXEL = np.dtype("V3")

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Drawing:
    """What ``paint`` paints into a frame; empty when there is nothing.

    Attributes:
        style: overlay style.
        opacity: opacity of the markers, 0 to 1.
        frame_hw: height and width of the frame, px.
        shapes: geometry of the markers, one per region; beyond many, one for all further regions of a class.
        layers: pixels of the markers and labels, in the order of painting.
    """

    style: OverlayStyle
    opacity: float
    frame_hw: tuple[int, int]
    shapes: tuple[Shape, ...] = ()
    layers: tuple[Layer, ...] = ()

    def covered(self) -> npt.NDArray[np.bool_]:
        """Return the pixels that ``paint`` may change, (H, W)."""
        covered = np.zeros(self.frame_hw, np.bool_)
        for layer in self.layers:
            covered.reshape(-1)[layer.places] = True
            if layer.solid is not None:
                _window(covered, layer)[layer.solid > 0] = True
        return covered

    def moved(self, motion: npt.NDArray[np.float64]) -> Drawing:
        """Return the drawing of the same regions somewhere else; what leaves the frame is cut off.

        Args:
            motion: (2, 3), takes (x, y, 1) in pixels of the frame to where the point is now.
        """
        place = _upright if self.style == "box" else _placed
        shapes = [replace(shape, paths=place(shape.paths, motion)) for shape in self.shapes]
        return _drawing(self.style, self.opacity, self.frame_hw, shapes)


def draw(
    frame_rgb: Image,
    findings: Findings,
    style: OverlayStyle = "contour",
    alpha: float | None = None,
    label: Label = "none",
    lesions: Sequence[int | None] = (),
) -> Image:
    """Draw the findings into a frame.

    Args:
        frame_rgb: (H, W, 3) uint8; not changed.
        findings: those of this frame.
        style: a line along each region's smoothed edge, the region filled, a box around it, or nothing.
        alpha: opacity of the marker, 0 to 1; None takes the style's default.
        label: write each region's probability or the number of its lesion beside it, or nothing.
        lesions: number of each region's lesion, in their order; without a number nothing is written.
    Returns:
        (H, W, 3) uint8: the frame itself when there is nothing to draw, otherwise a copy.
    Raises:
        UsageError: the style or the label is not known.
    """
    return paint(frame_rgb, outline(findings, style, alpha, label, lesions))


def outline(
    findings: Findings,
    style: OverlayStyle = "contour",
    alpha: float | None = None,
    label: Label = "none",
    lesions: Sequence[int | None] = (),
) -> Drawing:
    """Prepare the drawing of findings: the part of ``draw`` that needs no frame.

    Every region has a marker, whatever its size: the operating point decides which regions count.

    Args:
        findings: of one frame.
        style, alpha, label, lesions: as for ``draw``.
    Raises:
        UsageError: the style or the label is not known.
    """
    check_style(style, label)
    opacity = DEFAULT_ALPHA[style] if alpha is None else alpha
    frame_hw = (findings.mask.shape[0], findings.mask.shape[1])
    if style == "none" or not findings.any or opacity <= 0:
        return Drawing(style, opacity, frame_hw)
    texts = _texts(findings, label, lesions)
    shapes = []
    for value in sorted({region.class_index for region in findings.regions}):
        boxes = [region.box for region in findings.regions if region.class_index == value]
        around = union(boxes)
        assert around is not None  # a class that is listed has a box
        colour_rgb = PALETTE_RGB[(value - 1) % len(PALETTE_RGB)]
        if style == "box":
            edges = [Outline((_corners(box),), box) for box in boxes]
            edges, others = edges[:_MOST_SHAPES], edges[_MOST_SHAPES:]
        else:
            edges, others = smooth_outlines(findings.mask, value, around, _MOST_SHAPES)
        if others:
            paths = tuple(path for edge in others for path in edge.paths)
            shapes.append(Shape(paths, colour_rgb, plain=True))
        shapes += [Shape(edge.paths, colour_rgb, texts.get((value, edge.box), "")) for edge in edges]
    return _drawing(style, opacity, frame_hw, shapes)


def _texts(findings: Findings, label: Label, lesions: Sequence[int | None]) -> dict[tuple[int, Rect], str]:
    """Return the labels by class and box of their regions."""
    regions = findings.regions
    if label == "probability":
        return {(region.class_index, region.box): f"{int(100 * region.probability)}%" for region in regions}
    if label == "lesion":
        # There are more regions than numbers where a frame has more than the tracker numbers.
        pairs = zip(regions, lesions, strict=False)
        return {
            (region.class_index, region.box): f"#{number}" for region, number in pairs if number is not None
        }
    return {}


def check_style(style: str, label: str) -> None:
    """Check the names of a style and of a label.

    Raises:
        UsageError: one of them is not known.
    """
    for name, value, known in (("overlay", style, OVERLAY_STYLES), ("label", label, LABELS)):
        if value not in known:
            raise UsageError(f"{name} {value!r} is not known", hint=f"Choose one of: {', '.join(known)}")


def paint(frame_rgb: Image, drawing: Drawing) -> Image:
    """Paint a drawing into a frame of its size.

    Args:
        frame_rgb: (H, W, 3) uint8; not changed.
        drawing: made by ``outline``.
    Returns:
        (H, W, 3) uint8: the frame itself when the drawing is empty, otherwise a copy.
    """
    if not drawing.layers:
        return frame_rgb
    drawn = np.array(frame_rgb, dtype=np.uint8, order="C")
    pixels = drawn.reshape(-1, 3)
    whole = pixels.view(_PIXEL)  # three bytes at once, which is three times as fast
    for layer in drawing.layers:
        if layer.solid is not None:
            window = _window(drawn, layer)
            colour = np.full_like(window, layer.colour_rgb)
            blend = cv2.addWeighted(colour, drawing.opacity, window, 1 - drawing.opacity, 0)
            cv2.copyTo(np.asarray(blend, np.uint8), layer.solid, window)
        new = ((pixels.take(layer.places, axis=0) * layer.keep + layer.add) >> 8).astype(np.uint8)
        whole.put(layer.places, new.view(_PIXEL))
    return drawn


def _drawing(
    style: OverlayStyle, opacity: float, frame_hw: tuple[int, int], shapes: Sequence[Shape]
) -> Drawing:
    layers = draw_layers(shapes, opacity, frame_hw, filled=style == "fill")
    return Drawing(style, opacity, frame_hw, tuple(shapes), layers)


def _corners(box: Rect) -> npt.NDArray[np.float32]:
    """(4, 2): the edge of a box; pixel centres have whole numbers."""
    left, top, right, bottom = box.x - 0.5, box.y - 0.5, box.x + box.w - 0.5, box.y + box.h - 0.5
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def _placed(paths: Paths, motion: npt.NDArray[np.float64]) -> Paths:
    points = np.concatenate(paths) @ motion[:, :2].T + motion[:, 2]
    return split_paths(points.astype(np.float32), paths)


def _upright(paths: Paths, motion: npt.NDArray[np.float64]) -> Paths:
    """Move boxes, and let them grow, with what they hold; they do not turn."""
    boxes = np.stack(paths)  # (n, 4, 2)
    centres = boxes.mean(axis=1, keepdims=True)
    scale = float(np.hypot(motion[0, 0], motion[1, 0]))
    moved = centres @ motion[:, :2].T + motion[:, 2] + scale * (boxes - centres)
    return tuple(moved.astype(np.float32))


def _window(image: npt.NDArray[Any], layer: Layer) -> npt.NDArray[Any]:
    assert layer.solid is not None
    height_px, width_px = layer.solid.shape
    return image[layer.top : layer.top + height_px, layer.left : layer.left + width_px]
