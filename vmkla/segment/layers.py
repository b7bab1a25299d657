"""Pixels of markers and labels: geometry drawn into coverage, coverage into what changes in a frame."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vmkla.segment.preprocess import Rect

_EDGE_RGB, _EDGE_OPACITY = (8, 8, 8), 0.7
"""The dark edge along both sides of a line, which separates it from bright mucosa and glare."""
_LINE_PX_PER_SIDE, _EDGE_PX_PER_SIDE, _TEXT_PX_PER_SIDE = 1 / 240, 1 / 720, 1 / 36
"""Width of a line, width of its dark edge and height of a digit, over the shorter side of the frame."""
_FONT, _FONT_PX = cv2.FONT_HERSHEY_SIMPLEX, 21  # height of a digit at scale 1
_SHIFT = 4  # OpenCV draws at 1/16 of a pixel
_WIDE_FROM_PX = 800  # shorter side of frames whose lines are wide enough to be drawn at the frame's size

Image = npt.NDArray[np.uint8]
Paths = tuple[npt.NDArray[np.float32], ...]


@dataclass(frozen=True, eq=False)
class Shape:
    """Geometry of one region's marker.

    Attributes:
        paths: closed curves, (n, 2) float32 each, x and y in the frame, px.
        colour_rgb: colour of the marker.
        text: label; empty for none.
        plain: draw without smooth rims, which is many times as fast.
    """

    paths: Paths
    colour_rgb: tuple[int, int, int]
    text: str = ""
    plain: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """Pixels of one region's marker or label: ``new = (old * keep + add) / 256``.

    Attributes:
        places: (n,) intp, numbers of the pixels in the frame, y * width + x.
        keep: (n, 1) uint16, share of the frame's pixel that remains, 0 to 256.
        add: (n, 3) uint16, 256 times what the marker adds.
        solid: (h, w) uint8, 255 on further pixels, which get the colour at the drawing's opacity, or None.
        colour_rgb: colour of these.
        left, top: corner of ``solid`` in the frame, px.
    """

    places: npt.NDArray[np.intp]
    keep: npt.NDArray[np.uint16]
    add: npt.NDArray[np.uint16]
    solid: Image | None
    colour_rgb: tuple[int, int, int]
    left: int
    top: int


def split_paths(points: npt.NDArray[Any], paths: Paths) -> tuple[npt.NDArray[Any], ...]:
    """Cut points into pieces as long as the paths; one array is handled far faster than thousands."""
    return tuple(np.split(points, np.cumsum([len(path) for path in paths[:-1]])))


def draw_layers(
    shapes: Sequence[Shape], opacity: float, frame_hw: tuple[int, int], *, filled: bool
) -> tuple[Layer, ...]:
    """Draw the markers and labels of shapes; those outside the frame have no layer.

    Args:
        shapes: geometry of the markers.
        opacity: opacity of the markers, 0 to 1; labels are opaque.
        frame_hw: height and width of the frame, px.
        filled: fill the paths; otherwise draw lines along them.
    Returns:
        Layers in the order of painting, markers first.
    """
    markers = [_marker(shape, opacity, frame_hw, filled) for shape in shapes]
    return tuple(layer for layer in (*markers, *_labels(shapes, frame_hw)) if layer is not None)


def _marker(shape: Shape, opacity: float, frame_hw: tuple[int, int], filled: bool) -> Layer | None:
    """Draw the line or the area of one region; None when it lies outside the frame."""
    pen = _Pen.of(frame_hw, plain=shape.plain)
    rim = cv2.LINE_8 if shape.plain else cv2.LINE_AA
    points = np.concatenate(shape.paths)
    around = _cut(points.min(axis=0), points.max(axis=0), pen.reach_px, frame_hw)
    if around is None:
        return None
    fine_hw = (around.h * pen.fineness, around.w * pen.fineness)
    line = np.zeros(fine_hw, np.uint8)  # coverage, 0 to 255
    edge = np.zeros(fine_hw, np.uint8)
    shift = pen.fineness * (0.5 - np.array([around.x, around.y])) - 0.5
    curves = split_paths(
        np.rint((pen.fineness * points + shift) * (1 << _SHIFT)).astype(np.int32), shape.paths
    )
    if filled:
        cv2.fillPoly(line, curves, 255, cv2.LINE_8 if pen.fineness > 1 else rim, _SHIFT)
    else:
        wide = pen.line + 2 * pen.edge_px * pen.fineness
        cv2.polylines(line, curves, True, 255, pen.line, rim, _SHIFT)
        cv2.polylines(edge, curves, True, 255, wide, rim, _SHIFT)
    if pen.fineness > 1:
        line, edge = (
            np.asarray(cv2.resize(plane, (around.w, around.h), interpolation=cv2.INTER_AREA), np.uint8)
            for plane in (line, edge)
        )
    return _layer(line, edge, around, shape.colour_rgb, opacity, frame_hw, filled=filled)


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
    added = over * np.array(colour_rgb, np.float32) + under * np.array(_EDGE_RGB, np.float32)
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
    def of(cls, frame_hw: tuple[int, int], *, plain: bool = False) -> _Pen:
        side_px = min(frame_hw)
        fineness = 2 if side_px < _WIDE_FROM_PX and not plain else 1
        return cls(
            fineness,
            max(1 if plain else 2, round(fineness * side_px * _LINE_PX_PER_SIDE - 1.7)),
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
