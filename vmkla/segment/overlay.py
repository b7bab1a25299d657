"""Draw findings into a frame. Pixels outside a marker are never touched."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.errors import UsageError
from vmkla.segment.contours import Outline, smooth_outlines
from vmkla.segment.findings import Findings
from vmkla.segment.preprocess import Rect, union

OverlayStyle = Literal["contour", "fill", "box", "none"]
OVERLAY_STYLES: tuple[str, ...] = get_args(OverlayStyle)
Label = Literal["none", "probability"]
LABELS: tuple[str, ...] = get_args(Label)

DEFAULT_ALPHA = {"contour": 1.0, "fill": 0.4, "box": 1.0, "none": 0.0}
"""Opacity of each style when the user gives none: lines are opaque, areas show what is under them."""

PALETTE_RGB = ((64, 255, 64), (64, 224, 255), (255, 224, 32), (255, 96, 255), (255, 144, 32), (160, 160, 255))
"""Colours that tissue does not have; class 1 takes the first."""

_EDGE_RGB, _EDGE_OPACITY = (8, 8, 8), 0.7
"""The dark edge along both sides of a line, which separates it from bright mucosa and glare."""
_LINE_PX_PER_SIDE, _EDGE_PX_PER_SIDE, _TEXT_PX_PER_SIDE = 1 / 240, 1 / 720, 1 / 36
"""Width of a line, width of its dark edge and height of a digit, over the shorter side of the frame."""
_FONT, _FONT_PX = cv2.FONT_HERSHEY_SIMPLEX, 21  # height of a digit at scale 1
_PIXEL = np.dtype("V3")
_SHIFT = 4  # OpenCV draws at 1/16 of a pixel
_COARSE_FROM_PX = (
    800  # of the shorter side: from here on lines are wide enough to be drawn at the frame's size
)

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Shape:
    """The geometry of one region's marker.

    Attributes:
        paths: closed curves, (n, 2) float32 each, x and y in the frame, px.
        colour_rgb: of the marker.
        text: its label; empty for none.
    """

    paths: tuple[npt.NDArray[np.float32], ...]
    colour_rgb: tuple[int, int, int]
    text: str = ""


@dataclass(frozen=True, eq=False)
class Layer:
    """The pixels of one region's marker: ``new = (old * keep + add) / 256``.

    Attributes:
        places: (n,) intp, numbers of the pixels in the frame, y * width + x.
        keep: (n, 1) uint16, what remains of the frame, 0 to 256.
        add: (n, 3) uint16, what the marker adds.
        solid: (h, w) uint8, 255 on further pixels, which get the colour at the drawing's opacity, or None.
        colour_rgb: of these.
        left, top: where the corner of ``solid`` lies in the frame, px.
    """

    places: npt.NDArray[np.intp]
    keep: npt.NDArray[np.uint16]
    add: npt.NDArray[np.uint16]
    solid: Image | None
    colour_rgb: tuple[int, int, int]
    left: int
    top: int


@dataclass(frozen=True, eq=False)
class Drawing:
    """What is to be painted into a frame; empty when there is nothing.

    Attributes:
        style, opacity: how.
        frame_hw: height and width of the frame that it was made for, px.
        shapes: geometry, one per region.
        layers: pixels, in the order of painting.
    """

    style: OverlayStyle
    opacity: float
    frame_hw: tuple[int, int]
    shapes: tuple[Shape, ...] = ()
    layers: tuple[Layer, ...] = ()

    def covered(self) -> npt.NDArray[np.bool_]:
        """(H, W): the pixels that ``paint`` may change."""
        covered = np.zeros(self.frame_hw, np.bool_)
        for layer in self.layers:
            covered.reshape(-1)[layer.places] = True
            if layer.solid is not None:
                _window(covered, layer)[layer.solid > 0] = True
        return covered

    def moved(self, motion: npt.NDArray[np.float64]) -> Drawing:
        """The same regions somewhere else; what leaves the frame is cut off.

        Args:
            motion: (2, 3), takes (x, y, 1) in pixels of the frame to where the point is now.
        """
        place = _upright if self.style == "box" else _placed
        shapes = [
            replace(shape, paths=tuple(place(path, motion) for path in shape.paths)) for shape in self.shapes
        ]
        return _drawing(self.style, self.opacity, self.frame_hw, shapes)


def draw(
    frame_rgb: Image,
    findings: Findings,
    style: OverlayStyle = "contour",
    alpha: float | None = None,
    label: Label = "none",
) -> Image:
    """Mark the findings.

    Args:
        frame_rgb: (H, W, 3) uint8; not changed.
        findings: those of this frame.
        style: a line along each region's smoothed edge, the region filled, a box around it, or nothing.
        alpha: opacity of the marker, 0 to 1; None takes the style's default.
        label: write each region's probability beside it, or nothing.
    Returns:
        (H, W, 3) uint8: the frame itself when there is nothing to draw, otherwise a copy.
    Raises:
        UsageError: the style or the label is not known.
    """
    return paint(frame_rgb, outline(findings, style, alpha, label))


def outline(
    findings: Findings, style: OverlayStyle = "contour", alpha: float | None = None, label: Label = "none"
) -> Drawing:
    """The work of ``draw`` that needs no frame: what is painted, and where.

    Every region has a marker, whatever its size: which regions count is decided where findings are made.

    Args:
        findings: of one frame.
        style, alpha, label: as for ``draw``.
    Raises:
        UsageError: the style or the label is not known.
    """
    for name, value, known in (("overlay", style, OVERLAY_STYLES), ("label", label, LABELS)):
        if value not in known:
            raise UsageError(f"{name} {value!r} is not known", hint=f"Choose one of: {', '.join(known)}")
    opacity = DEFAULT_ALPHA[style] if alpha is None else alpha
    frame_hw = (findings.mask.shape[0], findings.mask.shape[1])
    if style == "none" or not findings.any or opacity <= 0:
        return Drawing(style, opacity, frame_hw)
    texts = {
        (region.class_index, region.box): f"{100 * region.probability:.0f}%"
        for region in findings.regions
        if label == "probability"
    }
    shapes = []
    for value in sorted({region.class_index for region in findings.regions}):
        boxes = [region.box for region in findings.regions if region.class_index == value]
        around = union(boxes)
        assert around is not None  # a class that is listed has a box
        colour_rgb = PALETTE_RGB[(value - 1) % len(PALETTE_RGB)]
        if style == "box":
            edges = [Outline((_corners(box),), box) for box in boxes]
        else:
            edges = smooth_outlines(findings.mask, value, around)
        shapes += [Shape(edge.paths, colour_rgb, texts.get((value, edge.box), "")) for edge in edges]
    return _drawing(style, opacity, frame_hw, shapes)


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
    markers = [_marker(shape, style, opacity, frame_hw) for shape in shapes]
    layers = tuple(layer for layer in (*markers, *_labels(shapes, frame_hw)) if layer is not None)
    return Drawing(style, opacity, frame_hw, tuple(shapes), layers)


def _marker(shape: Shape, style: OverlayStyle, opacity: float, frame_hw: tuple[int, int]) -> Layer | None:
    """Draw the line or the area of one region; None when it lies outside the frame."""
    pen = _Pen.of(frame_hw)
    points = np.concatenate(shape.paths)
    around = _cut(points.min(axis=0), points.max(axis=0), pen.reach_px, frame_hw)
    if around is None:
        return None
    fine_hw = (around.h * pen.fineness, around.w * pen.fineness)
    line = np.zeros(fine_hw, np.uint8)  # coverage, 0 to 255
    edge = np.zeros(fine_hw, np.uint8)
    shift = pen.fineness * (0.5 - np.array([around.x, around.y])) - 0.5
    curves = [np.rint((pen.fineness * path + shift) * 16).astype(np.int32)[:, None] for path in shape.paths]
    if style == "fill":
        cv2.fillPoly(line, curves, 255, cv2.LINE_8 if pen.fineness > 1 else cv2.LINE_AA, _SHIFT)
    else:
        wide = pen.line + 2 * pen.edge_px * pen.fineness
        cv2.polylines(line, curves, True, 255, pen.line, cv2.LINE_AA, _SHIFT)
        cv2.polylines(edge, curves, True, 255, wide, cv2.LINE_AA, _SHIFT)
    if pen.fineness > 1:
        line, edge = (
            np.asarray(cv2.resize(plane, (around.w, around.h), interpolation=cv2.INTER_AREA), np.uint8)
            for plane in (line, edge)
        )
    return _layer(line, edge, around, shape.colour_rgb, opacity, frame_hw, filled=style == "fill")


def _labels(shapes: Sequence[Shape], frame_hw: tuple[int, int]) -> list[Layer]:
    """Write the labels, those of large regions first; one that would lie on another is left out."""
    layers: list[Layer] = []
    taken = np.zeros(frame_hw, np.bool_) if any(shape.text for shape in shapes) else None
    for shape in sorted(shapes, key=lambda shape: -float(np.ptp(np.concatenate(shape.paths), axis=0).prod())):
        around = _label_place(shape, frame_hw) if shape.text else None
        if around is None or taken is None:
            continue
        place = taken[around.y : around.y + around.h, around.x : around.x + around.w]
        if not place.any():
            place[...] = True
            layers.append(_label(shape, around, frame_hw))
    return layers


def _label_place(shape: Shape, frame_hw: tuple[int, int]) -> Rect | None:
    """Above the region, or below where there is no room; None when the region lies outside the frame."""
    pen = _Pen.of(frame_hw)
    (width_px, height_px), _ = cv2.getTextSize(shape.text, _FONT, pen.font_scale, pen.text)
    points = np.concatenate(shape.paths)
    region = _cut(points.min(axis=0), points.max(axis=0), pen.reach_px, frame_hw)
    wide_px, high_px = width_px + 2 * pen.edge_px, height_px + 2 * pen.edge_px
    if region is None or wide_px > frame_hw[1] or high_px > frame_hw[0]:
        return None
    top = region.y - high_px - pen.edge_px
    if top < 0:
        top = min(region.y + region.h + pen.edge_px, frame_hw[0] - high_px)
    return Rect(min(region.x, frame_hw[1] - wide_px), top, wide_px, high_px)


def _label(shape: Shape, around: Rect, frame_hw: tuple[int, int]) -> Layer:
    pen = _Pen.of(frame_hw)
    line = np.zeros((around.h, around.w), np.uint8)
    at = (pen.edge_px, around.h - 1 - pen.edge_px)
    cv2.putText(line, shape.text, at, _FONT, pen.font_scale, 255, pen.text, cv2.LINE_AA)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pen.edge_px + 1, 2 * pen.edge_px + 1))
    edge = np.asarray(cv2.dilate(line, brush), np.uint8)
    return _layer(line, edge, around, shape.colour_rgb, 1.0, frame_hw)


def _layer(
    line: Image,
    edge: Image,
    around: Rect,
    colour_rgb: tuple[int, int, int],
    opacity: float,
    frame_hw: tuple[int, int],
    *,
    filled: bool = False,
) -> Layer:
    """Bring the coverage of a line and of its dark edge, (h, w) uint8 each, to the pixels that change."""
    solid = np.where(line == 255, line, 0).astype(np.uint8) if filled else None
    either = (line | edge) if solid is None else line ^ solid
    found = cv2.findNonZero(either)  # ten times as fast as np.nonzero
    at = np.zeros((0, 2), np.int32) if found is None else found.reshape(-1, 2)
    inside = at[:, 1] * np.intp(around.w) + at[:, 0]
    shares = edge.reshape(-1).take(inside).astype(np.uint16) << 8 | line.reshape(-1).take(inside)
    keep, add = _blending(colour_rgb, opacity)
    return Layer(
        places=inside + at[:, 1] * np.intp(frame_hw[1] - around.w) + (around.y * frame_hw[1] + around.x),
        keep=keep.take(shares)[:, None],
        add=add.take(shares, axis=0),
        solid=solid,
        colour_rgb=colour_rgb,
        left=around.x,
        top=around.y,
    )


@functools.lru_cache(maxsize=32)
def _blending(
    colour_rgb: tuple[int, int, int], opacity: float
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """``Layer.keep`` (65536,) and ``Layer.add`` (65536, 3) for each edge coverage * 256 + line coverage."""
    coverage = np.arange(256, dtype=np.float32) / 255
    over = np.float32(opacity) * coverage[None, :, None]
    under = (1 - over) * np.float32(_EDGE_OPACITY * opacity) * coverage[:, None, None]
    keep = np.rint(256 * (1 - over - under)).astype(np.uint16).reshape(-1)
    added = over * np.float32(colour_rgb) + under * np.float32(_EDGE_RGB)
    return keep, np.rint(256 * added + 127).astype(np.uint16).reshape(-1, 3)


class _Pen(NamedTuple):
    """How lines are drawn into frames of one size.

    OpenCV draws a smooth line of thickness t about t + 1.7 px wide, and of 1 only 1.2 px, so lines in small
    frames are drawn at twice the size. Measured with opencv-python 5.0.0.
    """

    fineness: int  # pixels drawn per pixel of the frame, along each side
    line: int  # OpenCV's thickness of the line, in these
    edge_px: int
    text: int  # OpenCV's thickness of a letter's strokes
    font_scale: float

    @property
    def reach_px(self) -> int:
        """How far from a path a pixel may change, at most."""
        return self.edge_px + (self.line + 3) // (2 * self.fineness) + 2

    @classmethod
    def of(cls, frame_hw: tuple[int, int]) -> _Pen:
        side_px = min(frame_hw)
        fineness = 2 if side_px < _COARSE_FROM_PX else 1
        return cls(
            fineness,
            max(2, round(fineness * side_px * _LINE_PX_PER_SIDE - 1.7)),
            max(1, round(side_px * _EDGE_PX_PER_SIDE)),
            max(1, round(side_px * _LINE_PX_PER_SIDE / 2)),
            side_px * _TEXT_PX_PER_SIDE / _FONT_PX,
        )


def _cut(
    least: npt.NDArray[Any], largest: npt.NDArray[Any], reach_px: int, frame_hw: tuple[int, int]
) -> Rect | None:
    """The pixels between two corners and as far as a line reaches around them, inside the frame."""
    left, top = (max(0, int(np.floor(value)) - reach_px) for value in least.tolist())
    right, bottom = (
        min(side_px, int(np.ceil(value)) + reach_px + 1)
        for value, side_px in zip(largest.tolist(), frame_hw[::-1], strict=True)
    )
    return Rect(left, top, right - left, bottom - top) if right > left and bottom > top else None


def _corners(box: Rect) -> npt.NDArray[np.float32]:
    """(4, 2): the edge of a box; pixel centres have whole numbers."""
    left, top, right, bottom = box.x - 0.5, box.y - 0.5, box.x + box.w - 0.5, box.y + box.h - 0.5
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def _placed(path: npt.NDArray[np.float32], motion: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return np.asarray(path @ motion[:, :2].T + motion[:, 2], np.float32)


def _upright(path: npt.NDArray[np.float32], motion: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """A box that moves and grows with what it holds, and does not turn."""
    centre = path.mean(axis=0)
    scale = float(np.hypot(motion[0, 0], motion[1, 0]))
    return np.asarray(_placed(centre, motion) + scale * (path - centre), np.float32)


def _window(image: npt.NDArray[Any], layer: Layer) -> npt.NDArray[Any]:
    assert layer.solid is not None
    height_px, width_px = layer.solid.shape
    return image[layer.top : layer.top + height_px, layer.left : layer.left + width_px]
