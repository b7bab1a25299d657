"""Frame to network input and back: the one definition for train, calibrate, eval and infer.

OpenCV is imported where pixels are interpolated, so that packed sets are read without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vmkla.errors import BadInputError, ShapeError, UsageError
from vmkla.plain_values import from_plain

SIDE_MAX_PX = 16384
"""Of the network's input."""
_SEARCH_SIDE_PX = 640
"""The field of view is searched in a copy whose longer side is at most this."""
_BORDER_LEVEL_MAX = 48
"""A pixel of the border is never brighter than this in its brightest channel (0 to 255)."""
_BORDER_MARGIN = 7
"""A pixel belongs to the picture when it is this much brighter than the border."""
_FIELD_SHARE_MIN = 0.3
"""A field narrower or lower than this share of the frame is not believed."""


class Rect(NamedTuple):
    """A rectangle of pixels: left, top, width, height."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True)
class PreprocessSpec:
    """How a frame becomes the network's input. Travels in the artefact's metadata.

    Attributes:
        height, width: size of the network's input, px.
        roi: field of view cut out first: ``"none"`` (the whole frame), ``"auto"`` (black border
            removed) or a fixed ``Rect`` in frame pixels.
    """

    height: int
    width: int
    roi: str | Rect = "none"

    def __post_init__(self) -> None:
        if not (1 <= self.height <= SIDE_MAX_PX and 1 <= self.width <= SIDE_MAX_PX):
            raise ShapeError(
                f"the network's input is {self.height}x{self.width}, both must be 1 to {SIDE_MAX_PX}"
            )
        _check_roi(self.roi)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        roi = self.roi if isinstance(self.roi, str) else list(self.roi)
        return {"height": self.height, "width": self.width, "roi": roi}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PreprocessSpec:
        """Inverse of ``to_dict``.

        Raises:
            KeyError, TypeError: a value is missing or of another type.
            ShapeError, UsageError: it makes no sense.
        """
        roi = values["roi"]
        rect = roi if isinstance(roi, str) else Rect(*from_plain(tuple[int, int, int, int], roi, "roi"))
        return cls(
            from_plain(int, values["height"], "height"), from_plain(int, values["width"], "width"), rect
        )


def parse_roi(text: str) -> str | Rect:
    """Read a field of view as a user writes it: ``auto``, ``none`` or ``x,y,w,h``.

    Raises:
        UsageError: it is none of these.
    """
    if text in ("auto", "none"):
        return text
    try:
        roi: str | Rect = Rect(*(int(part) for part in text.split(",")))
    except (TypeError, ValueError):
        roi = text
    _check_roi(roi)
    return roi


def field_of_view(frame_rgb: npt.NDArray[np.uint8], roi: str | Rect) -> Rect:
    """The part of a frame that the network sees.

    Args:
        frame_rgb: (H, W, 3) uint8.
        roi: ``"none"``, ``"auto"`` or a fixed ``Rect``. With ``"auto"`` a frame in which no field can be
            told from the border (all dark, or no border at all) is taken whole.
    Returns:
        A rectangle inside the frame.
    Raises:
        UsageError: ``roi`` is none of these.
        BadInputError: the fixed rectangle leaves the frame.
    """
    _check_frame(frame_rgb)
    _check_roi(roi)
    height_px, width_px = frame_rgb.shape[:2]
    whole = Rect(0, 0, width_px, height_px)
    if isinstance(roi, Rect):
        if roi.x + roi.w > width_px or roi.y + roi.h > height_px:
            raise BadInputError(
                f"the field of view {','.join(map(str, roi))} (x,y,w,h) leaves the frame, "
                f"which is {width_px}x{height_px} (width x height)",
                hint="Give one that fits, or use: --roi auto",
            )
        return roi
    if roi == "none":
        return whole
    return visible_field(frame_rgb) or whole


def visible_field(frame_rgb: npt.NDArray[np.uint8]) -> Rect | None:
    """The bounding box of the lit picture inside the dark border of an endoscope's frame.

    The border's level is the median of the dark pixels along the frame's edge, so a border that is grey
    rather than black is found too. The field is the largest connected region that is brighter; text and
    small insets in the border are other regions. Only its bounding box is taken: rounded corners and a
    dark vignette stay inside.

    Args:
        frame_rgb: (H, W, 3) uint8.
    Returns:
        The box; the whole frame when there is no dark border; None when the frame shows no field that
        can be believed (dark, or only small bright spots).
    """
    import cv2

    height_px, width_px = frame_rgb.shape[:2]
    shrink = -(-max(height_px, width_px) // _SEARCH_SIDE_PX)
    small_wh = (max(1, width_px // shrink), max(1, height_px // shrink))
    small_rgb = frame_rgb if shrink == 1 else cv2.resize(frame_rgb, small_wh, interpolation=cv2.INTER_AREA)
    red, green, blue = cv2.split(small_rgb)
    level = cv2.medianBlur(cv2.max(cv2.max(red, green), blue), 3)  # (h, w), brightest channel

    edge = np.concatenate([level[0], level[-1], level[:, 0], level[:, -1]])
    dark = edge[edge <= _BORDER_LEVEL_MAX]
    if dark.size == 0:
        return Rect(0, 0, width_px, height_px)
    lit = cv2.threshold(level, float(np.median(dark)) + _BORDER_MARGIN, 255, cv2.THRESH_BINARY)[1]
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(lit, connectivity=4)
    if count < 2:
        return None
    x, y, w, h, _ = (int(value) for value in stats[1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))])
    if w < _FIELD_SHARE_MIN * small_wh[0] or h < _FIELD_SHARE_MIN * small_wh[1]:
        return None

    # Back to the frame's own pixels, rounded outwards.
    across, down = width_px / small_wh[0], height_px / small_wh[1]
    left, top = int(x * across), int(y * down)
    right = min(width_px, int(np.ceil((x + w) * across)))
    bottom = min(height_px, int(np.ceil((y + h) * down)))
    return Rect(left, top, right - left, bottom - top)


def union(rects: Iterable[Rect]) -> Rect | None:
    """The smallest rectangle that holds all of them; None when there are none."""
    boxes = [(rect.x, rect.y, rect.x + rect.w, rect.y + rect.h) for rect in rects]
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    left, top = min(lefts), min(tops)
    return Rect(left, top, max(rights) - left, max(bottoms) - top)


def prepare(frame_rgb: npt.NDArray[np.uint8], spec: PreprocessSpec, rect: Rect) -> npt.NDArray[np.uint8]:
    """Cut out the field of view and stretch it to the network's size.

    Area interpolation along a side that shrinks, linear along one that grows.

    Args:
        frame_rgb: (H, W, 3) uint8, RGB.
        spec: the network's size.
        rect: what ``field_of_view`` gave.
    Returns:
        (spec.height, spec.width, 3) uint8, RGB, contiguous; may share memory with the frame.
    Raises:
        ShapeError: the frame is not (H, W, 3) uint8, or the rectangle is not inside it.
    """
    _check_frame(frame_rgb)
    _check_inside(rect, frame_rgb.shape[:2])
    field = frame_rgb[rect.y : rect.y + rect.h, rect.x : rect.x + rect.w]  # (rect.h, rect.w, 3)
    return np.ascontiguousarray(_stretch(field, (spec.width, spec.height)), dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class View:
    """The part of a frame that the network sees, at the network's size.

    Attributes:
        pixels_rgb: (h, w, 3) uint8.
        rect: the field of view, px of the frame.
    """

    pixels_rgb: npt.NDArray[np.uint8]
    rect: Rect


def view(frame_rgb: npt.NDArray[np.uint8], preprocess: PreprocessSpec, rect: Rect | None = None) -> View:
    """Cut out the field of view and stretch it to the network's size.

    Args:
        frame_rgb: (H, W, 3) uint8, RGB.
        preprocess: size of the network's input, and how the field of view is found.
        rect: the field of view where it is known already, px of the frame; None looks for it.
    Raises:
        ShapeError: the frame is not (H, W, 3) uint8.
        BadInputError: a fixed field of view leaves the frame.
    """
    if rect is None:
        rect = field_of_view(frame_rgb, preprocess.roi)
    return View(prepare(frame_rgb, preprocess, rect), rect)


def prepare_mask(mask: npt.NDArray[np.uint8], spec: PreprocessSpec, rect: Rect) -> npt.NDArray[np.uint8]:
    """The truth at the network's size, on the very pixels that ``prepare`` makes of its image.

    Args:
        mask: (H, W) uint8, class indices; 0 is the background.
        spec: the network's size.
        rect: what ``field_of_view`` gave for the image.
    Returns:
        (spec.height, spec.width) uint8: the class with the largest share of the pixel; of equal shares the
        highest index, so that a polyp is where half of a pixel or more is.
    Raises:
        ShapeError: the mask is not (H, W) uint8, or the rectangle is not inside it.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ShapeError(f"a mask has shape {mask.shape} and type {mask.dtype}, expected (H, W) uint8")
    _check_inside(rect, mask.shape)
    field = mask[rect.y : rect.y + rect.h, rect.x : rect.x + rect.w]
    size_wh = (spec.width, spec.height)
    classes = np.flatnonzero(np.bincount(field.ravel(), minlength=1)[1:]) + 1
    small = np.zeros((spec.height, spec.width), np.uint8)
    if len(classes) == 1:
        small[_stretch((field == classes[0]).astype(np.float32), size_wh) >= 0.5] = classes[0]
    elif len(classes):
        largest = _stretch((field == 0).astype(np.float32), size_wh)
        for index in classes:
            share = _stretch((field == index).astype(np.float32), size_wh)
            small[share >= largest] = index
            largest = np.maximum(largest, share)
    return small


def restore(
    probability: npt.NDArray[np.float32], rect: Rect, frame_hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Bring the network's answer back to the frame's own pixels, by linear interpolation.

    Args:
        probability: (classes, h, w) float32.
        rect: the field of view that the network saw.
        frame_hw: height and width of the frame, px.
    Returns:
        (classes, H, W) float32. Outside ``rect`` nothing was seen: 0, and with several classes the
        background (class 0) is 1 there.
    Raises:
        ShapeError: the probability is not (classes, h, w), or the rectangle is not inside the frame.
    """
    import cv2

    if probability.ndim != 3 or 0 in probability.shape:
        raise ShapeError(f"probability has shape {probability.shape}, expected (classes, h, w)")
    _check_inside(rect, frame_hw)
    classes = probability.shape[0]
    covers = rect == Rect(0, 0, frame_hw[1], frame_hw[0])
    restored = (np.empty if covers else np.zeros)((classes, *frame_hw), np.float32)
    if classes > 1 and not covers:
        restored[0] = 1.0
    for channel, plane in zip(restored, probability, strict=True):
        window = channel[rect.y : rect.y + rect.h, rect.x : rect.x + rect.w]
        window[...] = cv2.resize(
            np.ascontiguousarray(plane, np.float32), (rect.w, rect.h), interpolation=cv2.INTER_LINEAR
        )
    return restored


def _stretch(field: npt.NDArray[Any], size_wh: tuple[int, int]) -> npt.NDArray[Any]:
    """Area interpolation along a side that shrinks, linear along one that grows."""
    import cv2

    height_px, width_px = field.shape[:2]
    # OpenCV takes areas only where neither side grows, so a frame that does both goes in two steps.
    shrunk_wh = (min(width_px, size_wh[0]), min(height_px, size_wh[1]))
    if shrunk_wh != (width_px, height_px):
        field = np.asarray(cv2.resize(field, shrunk_wh, interpolation=cv2.INTER_AREA))
    if shrunk_wh != size_wh:
        field = np.asarray(cv2.resize(field, size_wh, interpolation=cv2.INTER_LINEAR))
    return field


def _check_frame(frame_rgb: npt.NDArray[np.uint8]) -> None:
    if not isinstance(frame_rgb, np.ndarray):
        raise ShapeError(
            f"a frame is a {type(frame_rgb).__name__}, expected a NumPy array (H, W, 3) uint8 in RGB",
            hint="Convert it: numpy.asarray(frame)",
        )
    shape, dtype = frame_rgb.shape, frame_rgb.dtype
    if len(shape) == 3 and shape[2] == 3 and dtype == np.uint8 and frame_rgb.size:
        return
    raise ShapeError(
        f"a frame has shape {shape} and type {dtype}, expected (H, W, 3) uint8 in RGB",
        hint=_frame_hint(shape, dtype),
    )


def _frame_hint(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str | None:
    """Return what turns a common other layout into a frame; None where nothing is known to."""
    if len(shape) == 4:
        return "Give one frame at a time, or several to Segmenter.batch."
    if len(shape) == 2:
        return "Repeat a grey image in three channels: numpy.repeat(image[..., None], 3, axis=2)"
    if len(shape) == 3 and shape[0] == 3 and shape[2] != 3:
        return "Put the channels last: frame.transpose(1, 2, 0)"
    if len(shape) == 3 and shape[2] == 4:
        return "Drop the alpha channel: frame[..., :3]"
    if np.issubdtype(dtype, np.floating):
        return "Give bytes; for values of 0 to 1: (255 * frame).round().astype(numpy.uint8)"
    return None


def _check_inside(rect: Rect, frame_hw: tuple[int, ...]) -> None:
    height_px, width_px = frame_hw
    fits = rect.x >= 0 and rect.y >= 0 and rect.w >= 1 and rect.h >= 1
    if not fits or rect.x + rect.w > width_px or rect.y + rect.h > height_px:
        raise ShapeError(
            f"the field of view {tuple(rect)} (x, y, w, h) is not inside a frame of {width_px}x{height_px} "
            "(width x height)"
        )


def _check_roi(roi: str | Rect) -> None:
    if isinstance(roi, str):
        if roi in ("auto", "none"):
            return
    elif min(roi) >= 0 and roi.w >= 1 and roi.h >= 1:
        return
    seen = roi if isinstance(roi, str) else ",".join(map(str, roi))
    raise UsageError(
        f"the field of view {seen!r} makes no sense",
        hint="Give auto, none, or x,y,w,h in pixels of the frame, for instance 80,20,480,440",
    )
